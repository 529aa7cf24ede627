"""Tables beyond one machine: sharded over the processes by TorchRec, for the same models and training loop."""
