"""The site is read offline: every link and anchor leads somewhere, nothing is fetched, every formula is drawn."""

import re

import pytest
from bs4 import BeautifulSoup
from test_project import LESSONS

from croco_lib.lessons.notebooks import FOLDER, FORMULA, site

pytestmark = pytest.mark.slow  # every lesson and every solution becomes a page
PICTURE = re.compile("data:image/[^,]+;base64,[A-Za-z0-9+/=\n]+")


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    (folder / "api").mkdir()
    (folder / "api/index.html").write_text("made by pdoc")
    index = site(folder, {})
    # Without the pictures' millions of letters, which the parser would read one by one.
    texts = {path: PICTURE.sub("data:,", path.read_text()) for path in index.parent.glob("*.html")}
    return {path: BeautifulSoup(text, "html.parser") for path, text in texts.items()}


def test_contents_name_every_lesson_with_its_minutes_and_lead_to_all_pages(pages):
    index = next(soup for path, soup in pages.items() if path.name == "index.html")
    rows = [row for row in index.select("table")[0].select("tr") if row.a]
    assert [row.a["href"] for row in rows] == [name.replace(".ipynb", ".html") for name in LESSONS]
    assert all(int(row.select("td")[-1].get_text()) > 0 for row in rows)
    linked = {link["href"].partition("#")[0] for soup in pages.values() for link in soup.select("a[href]")}
    solutions = [f"solutions_{path.stem}.html" for path in FOLDER.glob("solutions/*.ipynb")]
    assert {path.name for path in pages} <= linked and {"teaching.html", *solutions} <= {path.name for path in pages}


def test_the_functions_are_linked_where_their_pages_are(pages):
    index = next(soup for path, soup in pages.items() if path.name == "index.html")
    assert [link["href"] for link in index.select("nav a") if link.get_text() == "functions"] == ["api/index.html"] * 2


def test_every_link_and_anchor_leads_somewhere(pages):
    for path, soup in pages.items():
        for link in soup.select("a[href]"):
            target, _, anchor = link["href"].partition("#")
            if target.startswith("https://"):
                continue
            there = path.parent / target if target else path
            assert there.is_file(), f"{path.name}: {link['href']}"
            assert not anchor or pages[there].find(id=anchor), f"{path.name}: {link['href']}"


def test_nothing_is_fetched(pages):
    for path, soup in pages.items():
        assert not soup(["script", "link", "iframe", "object", "embed"]), path.name
        sources = [tag.get("src") or tag.get("srcset") for tag in soup.select("[src], [srcset]")]
        styles = "\n".join([tag.get_text() for tag in soup("style")] + [tag["style"] for tag in soup.select("[style]")])
        assert "@import" not in styles
        sources += [url.strip("'\" ") for url in re.findall(r"url\(([^)]*)\)", styles)]
        assert not [s[:80] for s in sources if not s.startswith(("data:", "#"))], path.name
        assert all(image.get("alt") for image in soup("img"))


def test_the_checks_of_exercises_are_folded_up_and_nothing_else_is(pages):
    for path, soup in pages.items():
        shown = [code.get_text() for code in soup.select(".jp-InputArea") if not code.find_parent("details")]
        folded = [code.get_text() for code in soup.select("details .jp-InputArea")]
        assert not [code for code in shown if re.search(r"^check\(", code, re.MULTILINE)], path.name
        if (name := f"{path.stem}.ipynb") in LESSONS:
            cells = LESSONS[name].cells
            hidden = [cell for cell in cells if cell.metadata.get("jupyter", {}).get("source_hidden")]
            assert len(folded) == len(hidden) and (name.startswith("00") or folded), path.name


def test_every_formula_is_drawn(pages):
    for path, soup in pages.items():
        drawn = soup("math")
        assert not [m for m in drawn if "\\" in m.get_text() or m.select("[mathvariant=double-struck]")], path.name
        if (name := f"{path.stem}.ipynb") in LESSONS:
            prose = [c.source for c in LESSONS[name].cells if c.cell_type == "markdown"]
            assert len(drawn) == sum(len(FORMULA.findall(re.sub("`[^`]*`", "", text))) for text in prose)


def test_pages_open_without_a_network(pages, chromium):
    context = chromium.new_context(offline=True)
    page, asked = context.new_page(), []
    page.on("request", lambda request: asked.append(request.url))
    for path in (p for p in pages if p.stem in ("index", "glossary", "03_crocodile_from_scratch")):
        page.goto(path.as_uri())
        page.wait_for_load_state()
        prose = page.evaluate("""() => {
            document.querySelectorAll('code').forEach(e => e.remove());
            return [...document.querySelectorAll('p, li, td')].map(e => e.innerText).join(' ');
        }""")
        assert not FORMULA.search(prose), path.name
        assert page.evaluate("[...document.querySelectorAll('math')].every(m => m.getBoundingClientRect().width > 0)")
    assert not [url for url in asked if not url.startswith(("file:", "data:"))]
    context.close()
