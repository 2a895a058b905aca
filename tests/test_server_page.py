"""The page, in a browser: what a person does on it, with mouse, keyboard and screen reader.

Needs Debian's `chromium` (or FLASHRANK_LITE_CHROMIUM: the path of another one) and the packages
`playwright` and `axe-playwright-python`. `FLASHRANK_LITE_SCREENSHOTS=docs` draws the pictures of
docs/server.md anew.
"""

import json
import os
import shutil
from pathlib import Path

import pytest
from conftest import PASSAGES, QUERY
from server_support import REQUIRED, Server, needs, serving

needs("playwright", "axe_playwright_python")

from axe_playwright_python.sync_playwright import Axe  # noqa: E402
from playwright.sync_api import Page, expect, sync_playwright  # noqa: E402

CHROMIUM = os.environ.get("FLASHRANK_LITE_CHROMIUM") or shutil.which("chromium")
if not CHROMIUM:
    said = "no chromium: apt-get install chromium, or set FLASHRANK_LITE_CHROMIUM to one"
    if REQUIRED:
        raise RuntimeError(said)
    pytest.skip(said, allow_module_level=True)

TEXTS = PASSAGES[1:6] + PASSAGES[:1]  # the answer comes last
BEST = len(TEXTS) - 1


@pytest.fixture(scope="module")
def server():
    with serving() as running:
        yield running


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def page(browser, server: Server):
    context = browser.new_context(permissions=["clipboard-read", "clipboard-write"])
    context.set_default_timeout(60_000)
    expect.set_options(timeout=60_000)
    opened = context.new_page()
    strange: list[str] = []
    opened.on("pageerror", lambda error: strange.append(str(error)))
    opened.on("console", lambda said: said.type == "error" and strange.append(said.text))
    opened.on(
        "request",
        lambda sent: sent.url.startswith((server.url, "data:")) or strange.append(sent.url),
    )
    opened.goto(server.url)
    opened.strange = strange
    yield opened
    context.close()


def first(page: Page) -> str:
    return page.locator("#results li").first.get_attribute("data-index")


def test_paste_and_rerank_puts_the_right_passage_first(page: Page):
    page.get_by_label("Query").fill(QUERY)
    page.get_by_label("Passages", exact=True).fill("\n".join(TEXTS))
    expect(page.locator("#count")).to_have_text(f"{len(TEXTS)} passages")
    page.get_by_role("button", name="Rerank").click()
    expect(page.locator("#results li")).to_have_count(len(TEXTS))
    assert first(page) == str(BEST)
    top = page.locator("#results li").first
    expect(top).to_contain_text(f"up {BEST}")
    expect(top).to_contain_text(TEXTS[BEST])
    expect(page.locator("#took")).to_contain_text("ms")
    assert page.strange == []


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", "\n".join(TEXTS)),
        ("a.jsonl", "\n".join(json.dumps({"text": text}) for text in TEXTS)),
        ("a.json", json.dumps({"hits": {"hits": [{"_source": {"title": t}} for t in TEXTS]}})),
        ("a.csv", "id,text\n" + "\n".join(f'{n},"{text}"' for n, text in enumerate(TEXTS))),
    ],
)
def test_a_dropped_file_fills_in_the_passages(page: Page, name: str, content: str):
    page.get_by_label("Query").fill(QUERY)
    page.evaluate(
        """([name, content]) => {
            const data = new DataTransfer();
            data.items.add(new File([content], name));
            const event = new DragEvent("drop", { dataTransfer: data, bubbles: true });
            document.getElementById("passages").dispatchEvent(event);
        }""",
        [name, content],
    )
    expect(page.locator("#count")).to_have_text(f"{len(TEXTS)} passages")
    page.get_by_label("Query").press("Enter")
    expect(page.locator("#results li")).to_have_count(len(TEXTS))
    assert first(page) == str(BEST)


def test_a_file_that_cannot_be_read_is_said_in_words(page: Page):
    page.set_input_files("#file", {"name": "a.json", "mimeType": "", "buffer": b"{"})
    expect(page.get_by_role("alert")).to_contain_text("cannot be read")


def test_what_is_missing_is_said_in_words(page: Page):
    page.get_by_role("button", name="Rerank").click()
    expect(page.get_by_role("alert")).to_contain_text("Type a query first")
    page.get_by_label("Query").fill(QUERY)
    page.get_by_role("button", name="Rerank").click()
    expect(page.get_by_role("alert")).to_contain_text("Paste some passages first")


def test_a_refusal_of_the_server_is_shown(page: Page):
    page.get_by_label("Query").fill("flea " * 4000)
    page.get_by_label("Passages", exact=True).fill("a flea")
    page.get_by_role("button", name="Rerank").click()
    expect(page.get_by_role("alert")).to_contain_text("--max-query-chars")


def test_the_best_stretch_of_a_long_passage_is_marked(page: Page):
    page.get_by_label("Query").fill(QUERY)
    filler = "Butter melts at about 32 degrees. " * 80
    page.get_by_label("Passages", exact=True).fill(f"{filler}{TEXTS[BEST]} {filler}\nshort")
    page.get_by_role("button", name="Rerank").click()
    expect(page.locator("#results mark")).to_contain_text(TEXTS[BEST][:60])
    page.get_by_role("button", name="Show all").click()
    expect(page.locator("#results li").first).to_contain_text(filler.strip())


def test_a_truncated_passage_is_marked(page: Page):
    page.get_by_label("Query").fill(QUERY)
    # more windows than are read
    page.get_by_label("Passages", exact=True).fill("a flea lives " * 6000 + "\nshort")
    page.get_by_role("button", name="Rerank").click()
    expect(page.locator("#results li .badge")).to_have_text(["truncated"])


def test_an_example_is_one_click(page: Page):
    page.get_by_role("button", name="Fleas and plague").click()
    expect(page.locator("#results li")).to_have_count(15)
    expect(page.locator("#credit")).to_contain_text("CC BY-SA")
    assert page.strange == []


def test_the_request_is_copied_as_commands_that_run(page: Page, tmp_path, monkeypatch, capsys):
    page.get_by_label("Query").fill("it's \"how\" long do fleas live'''")
    page.get_by_label("Passages", exact=True).fill("\n".join(TEXTS))
    page.get_by_role("button", name="Copy as curl").click()
    expect(page.locator("#said")).to_have_text("Copied as curl.")
    command = page.evaluate("navigator.clipboard.readText()")
    page.get_by_role("button", name="Copy as Python").click()
    expect(page.locator("#said")).to_have_text("Copied as Python.")
    code = page.evaluate("navigator.clipboard.readText()")
    exec(compile(code, "copied", "exec"), {})
    assert TEXTS[BEST][:40] in capsys.readouterr().out.splitlines()[0]
    if shutil.which("curl"):
        import subprocess

        done = subprocess.run(["sh", "-c", command], capture_output=True, check=True, timeout=60)
        assert json.loads(done.stdout)["results"][0]["index"] == BEST


def test_it_works_without_a_mouse(page: Page):
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent") == "Shop FAQ":
            break
    page.keyboard.press("Enter")
    expect(page.locator("#results li")).to_have_count(10)
    expect(page.locator("#results li").first).to_contain_text("refund")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", ["/", "/docs"])
def test_axe_finds_nothing_serious(browser, server: Server, scheme: str, path: str):
    page = browser.new_page(color_scheme=scheme, reduced_motion="reduce")
    page.goto(server.url + path)
    if path == "/":
        page.get_by_role("button", name="Shop FAQ").click()
        expect(page.locator("#results li")).to_have_count(10)
    else:
        page.locator("details").nth(1).click()
    found = Axe().run(page).response["violations"]
    page.close()
    serious = [one["id"] for one in found if one["impact"] in ("serious", "critical")]
    assert serious == [], json.dumps(found)[:2000]


@pytest.mark.parametrize(
    ("name", "scheme", "width", "height"),
    [("light", "light", 1200, 860), ("dark", "dark", 1200, 860), ("phone", "light", 390, 844)],
)
def test_it_fits_the_screen(browser, server: Server, name, scheme, width, height):
    page = browser.new_page(
        color_scheme=scheme,
        viewport={"width": width, "height": height},
        reduced_motion="reduce",
        device_scale_factor=1,
    )
    page.goto(server.url)
    page.get_by_role("button", name="Shop FAQ").click()
    expect(page.locator("#results li")).to_have_count(10)
    scrolled = "document.documentElement.scrollWidth"
    assert page.evaluate(scrolled) <= width
    if folder := os.environ.get("FLASHRANK_LITE_SCREENSHOTS"):
        path = Path(folder) / f"server-{name}.png"
        page.screenshot(path=path)
    page.close()
