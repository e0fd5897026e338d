"""Do the pages say what the ledger holds, to those who may look, and nothing else?"""

from __future__ import annotations

import hashlib
import json
import math
import re
import stat
import tomllib
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient
from ui_ledger import STUDY, Place, fill, finish_cell, running, value_of

from sweepctl.errors import UsageError
from sweepctl.ledger import open_ledger
from sweepctl.plan import Plan
from sweepctl.statistics import front_of
from sweepctl.ui import Guard, Reader, address, application, listen, listen_at, names_of
from sweepctl.ui._guard import POLICY, host_of
from sweepctl.ui._words import brief, large, plain_json, size, span, static_bytes

STATIC = Path(__file__).resolve().parent.parent / "sweepctl" / "ui" / "static"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A study of four cells, all done."""
    return fill(tmp_path_factory.mktemp("ui"))


def client(place: Place, **words: Any) -> TestClient:
    app: Guard = application(place.reading(), place.runs, **words)
    return TestClient(app, base_url="http://localhost:8799")  # type: ignore[arg-type]  # an ASGI app


@pytest.fixture(scope="module")
def browser(place: Place) -> TestClient:
    return client(place)


def task_of(place: Place, kind: str) -> str:
    return place.tasks(kind)[0].id


def every_address(place: Place) -> list[str]:
    stage1, measured = task_of(place, "stage1"), task_of(place, "reconstruct")
    return [
        "/",
        "/live",
        "/cluster",
        "/cluster/live",
        "/study/small",
        "/study/small/live",
        "/study/small/figure.json",
        "/study/small/figure.json?show=metric:psnr",
        "/study/small/fits",
        "/study/small/fits/live",
        "/study/small/pareto.json?metric=psnr&cost=macs",
        "/study/small/compare?cell=1&cell=2&cell=4",
        "/study/small/compare/curve.json?cell=1&cell=2&name=loss",
        "/study/small/point/2",
        "/study/small/point/2/live",
        "/study/small/point/2?with=4",
        f"/task/{stage1}",
        f"/task/{stage1}/live",
        f"/task/{stage1}/curve.json?name=loss",
        f"/task/{measured}/picture/original/0",
        f"/task/{measured}/picture/reconstruction/3",
        "/static/look.css",
        "/static/app.js",
    ]


# --- what the pages hold ------------------------------------------------------------------------


def test_every_page_answers_and_forbids_what_it_does_not_need(
    place: Place, browser: TestClient
) -> None:
    for path in every_address(place):
        answer = browser.get(path)
        assert answer.status_code == 200, f"{path}: {answer.text[:300]}"
        assert answer.headers["content-security-policy"] == POLICY, path
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "unsafe" not in answer.headers["content-security-policy"]


class Links(HTMLParser):
    """Every address that a page would load or lead to, and whether it runs anything inline."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.inline: list[str] = []
        self.ids: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.targets += [given[name] or "" for name in ("href", "src") if name in given]
        self.inline += [name for name in given if name.startswith("on") or name == "style"]
        self.ids += [given["id"] or ""] if "id" in given else []
        if tag == "script" and "src" not in given:
            self.inline.append("script")


def test_pages_run_nothing_inline_and_lead_only_to_this_host(
    place: Place, browser: TestClient
) -> None:
    for path in every_address(place):
        answer = browser.get(path)
        if not answer.headers["content-type"].startswith("text/html"):
            continue
        links = Links(answer.text)
        assert links.inline == [], path
        assert [one for one in links.targets if "//" in one] == [], path
        assert len(links.ids) == len(set(links.ids)), path


def test_every_link_of_every_page_leads_somewhere(place: Place, browser: TestClient) -> None:
    for path in ("/", "/study/small", "/study/small/fits", "/study/small/point/1", "/cluster"):
        for target in set(Links(browser.get(path).text).targets):
            if target.startswith("/"):
                assert browser.get(target).status_code == 200, f"{path} -> {target}"


def test_the_study_page_has_the_numbers_of_results(place: Place, browser: TestClient) -> None:
    html = browser.get("/study/small").text
    with place.reading() as ledger:
        table = ledger.cells.results("small")
    psnr = table.columns.index("psnr")
    for row in table.rows:
        assert f'title="{row[psnr]!r}"' in html
    assert "Does E help?" in html


def test_the_figure_holds_every_cell_and_the_law(place: Place, browser: TestClient) -> None:
    Reader(place.reading(), place.runs)
    wait_for_laws(browser)
    figure = browser.get("/study/small/figure.json?show=fit:law").json()
    points = [trace for trace in figure["data"] if "customdata" in trace]
    drawn = {
        cell: y for trace in points for cell, y in zip(trace["customdata"], trace["y"], strict=True)
    }
    assert drawn == {cell.index: value_of(cell) for cell in place.plan.cells}
    names = {trace.get("name") for trace in figure["data"]}
    assert {"law", "law, 95 %", "new configuration, 95 %"} <= names
    hollow = [trace for trace in figure["data"] if str(trace.get("name")).startswith("paper")]
    assert hollow and all(trace["marker"]["symbol"].endswith("-open") for trace in hollow)


def wait_for_laws(browser: TestClient) -> str:
    """The laws are fitted beside the requests: asked again until they are there."""
    import time

    for _ in range(200):
        html = browser.get("/study/small/fits/live").text
        if "being fitted" not in html:
            return html
        time.sleep(0.05)
    raise AssertionError("the laws never came")


def test_the_laws_page_is_what_fit_says(place: Place, browser: TestClient) -> None:
    from sweepctl.claims import fit_study

    html = wait_for_laws(browser)
    study = place.plan.study.study
    with place.reading() as ledger:
        analysis = fit_study(ledger.cells.frame("small"), study.fits, study.claims)
    assert analysis.fits[0].meaning in html
    assert analysis.claims[0].verdict in html
    assert f'title="{analysis.fits[0].coefficients["slope"].estimate!r}"' in html


def test_a_point_leads_to_its_neighbours_its_tasks_and_its_files(
    place: Place, browser: TestClient
) -> None:
    html = browser.get("/study/small/point/2").text
    cell = place.plan.cells[1]
    for fingerprint in cell.tasks.values():
        assert f"/task/{place.plan.tasks[fingerprint].id}" in html
    weights = place.runs / place.plan.tasks[cell.tasks["stage1"]].id / "weights.safetensors"
    assert f'data-copy="{weights}"' in html
    assert "sweepctl run study.yaml" in html  # the exact command
    assert "tokenizer.c" in html  # in what it differs from its neighbour
    assert "the last line" in html  # the log
    assert {"/study/small/point/1", "/study/small/point/4"} <= set(Links(html).targets)


def test_lineage_leads_there_and_back(place: Place, browser: TestClient) -> None:
    measured, trained = task_of(place, "reconstruct"), task_of(place, "stage1")
    up = Links(browser.get(f"/task/{measured}").text).targets
    parent = next(one for one in up if one.startswith("/task/stage1-"))
    assert trained in {task.id for task in place.tasks("stage1")}
    down = Links(browser.get(parent).text).targets
    assert f"/task/{measured}" in down


def test_pictures_are_the_arrays(place: Place, browser: TestClient) -> None:
    import io

    import numpy as np
    from PIL import Image

    task = task_of(place, "reconstruct")
    array = np.load(place.runs / task / "reconstructions.npy")
    answer = browser.get(f"/task/{task}/picture/reconstruction/2")
    assert answer.headers["content-type"] == "image/png"
    assert (np.asarray(Image.open(io.BytesIO(answer.content))) == array[2]).all()


def test_curves_come_from_the_result_and_from_a_running_attempt(tmp_path: Path) -> None:
    half = fill(tmp_path, cells=2)
    task = running(half, 3)
    with client(half) as browser:
        done = browser.get(f"/task/{task_of(half, 'stage1')}/curve.json?name=loss").json()
        live = browser.get(f"/task/{task.id}/curve.json?name=loss").json()
    assert done["data"][0]["x"][-1] == 29
    assert live["data"][0]["x"] == [1, 2, 3]


def test_compare_wants_two_to_six_cells(browser: TestClient) -> None:
    assert browser.get("/study/small/compare?cell=1").status_code == 404
    many = "&".join(f"cell={n}" for n in range(1, 8))
    assert browser.get(f"/study/small/compare?{many}").status_code == 404
    assert browser.get("/study/small/compare?cell=1&cell=99").status_code == 404
    html = browser.get("/study/small/compare?cell=1&cell=3").text
    assert "cell 1" in html and "cell 3" in html and "cell 2" not in html


def test_the_table_is_filtered_sorted_and_paged_by_the_address(browser: TestClient) -> None:
    def cells(query: str) -> list[int]:
        html = browser.get(f"/study/small/live?{query}").text
        return [int(number) for number in re.findall(r'<tr id="cell-(\d+)"', html)]

    assert cells("") == [1, 2, 3, 4]
    assert cells("where=p+%3D+4") == [1, 2]
    assert cells("axis.c=16") == [2, 4]
    assert cells("sort=-psnr") == sorted([1, 2, 3, 4], key=lambda n: -PSNR[n])
    assert cells("where=p+%3D+4&page=99") == [1, 2]
    wrong = browser.get("/study/small/live?where=nonsense+%3D").text
    assert "cannot be used" in wrong


PSNR = {1: 0.1 + 2.5 * 8, 2: 0.2 + 2.5 * 10, 3: 0.3 + 2.5 * 6, 4: 0.4 + 2.5 * 8}


# --- polling ------------------------------------------------------------------------------------


def test_a_poll_costs_a_304_until_something_is_recorded(tmp_path: Path) -> None:
    half = fill(tmp_path, cells=2)
    with client(half) as browser:
        browser.get("/study/small/live")
        wait_for_laws(browser)
        first = browser.get("/study/small/live")
        known = {"If-None-Match": first.headers["etag"]}
        again = browser.get("/study/small/live", headers=known)
        assert (again.status_code, again.content) == (304, b"")
        # The same part asked in another way is another part.
        assert browser.get("/study/small/live?sort=p", headers=known).status_code == 200
        running(half, 3)
        news = browser.get("/study/small/live", headers=known)
        assert news.status_code == 200 and news.headers["etag"] != first.headers["etag"]
        assert "stage1 of cell 3: running 30 %" in news.text
        known = {"If-None-Match": news.headers["etag"]}
        assert browser.get("/study/small/live", headers=known).status_code == 304
        running(half, 3, step=7)  # progress alone is news, too
        assert browser.get("/study/small/live", headers=known).status_code == 200


def test_new_results_come_in_while_it_is_looked_at(tmp_path: Path) -> None:
    half = fill(tmp_path, cells=2)
    with client(half) as browser:
        browser.get("/study/small/live")
        with open_ledger(half.database) as ledger:
            finish_cell(ledger, half.plan, half.plan.cells[2], half.runs)
        import time

        wanted = f'title="{value_of(half.plan.cells[2])!r}"'
        for _ in range(200):
            if wanted in browser.get("/study/small/live").text:
                return
            time.sleep(0.05)
    raise AssertionError("the new number never came")


def test_looking_changes_nothing(tmp_path: Path) -> None:
    small = fill(tmp_path)

    def hashes() -> dict[str, str]:
        return {
            str(path): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in small.folder.rglob("*")
            if path.is_file() and not path.name.endswith(("-shm", "-wal"))
        }

    before = hashes()
    with client(small) as browser:
        for path in every_address(small):
            browser.get(path)
        wait_for_laws(browser)
    assert hashes() == before


def test_the_reader_asks_either_database(database: str, tmp_path: Path) -> None:
    place = fill(tmp_path, cells=2, database=database)
    with place.reading() as ledger:
        reader = Reader(ledger, place.runs)
        before = reader.mark("small")
        (card,) = reader.studies()
        assert (card.name, card.cells, card.question) == ("small", 4, "Does E help?")
        running(place, 3, step=3)
        assert reader.mark("small") != before
        standing = reader.standing("small")
        assert [standing.states[number] for number in (1, 2, 3, 4)] == [
            *("done", "done", "running", "pending")
        ]
        assert [one.fraction for one in standing.line("stage1")] == [None, None, 0.3, None]
        assert standing.strip("stage1") == [(0, 2, "done"), (2, 1, "running"), (3, 1, "pending")]
        point = reader.point("small", 2)
        assert {one.name: one.value for one in point.view.metrics}["psnr"] == value_of(
            place.plan.cells[1]
        )
        assert [one.task_id for one in reader.cluster().running] == [
            standing.line("stage1")[2].task
        ]
        assert len(reader.task(point.tasks[-1][1].view.record.state.id).view.up) == 4


def test_samples_of_a_generator_stand_by_class(tmp_path: Path) -> None:
    import numpy as np
    from ledger_plans import SmallPlan, finish, make_plan, make_task, submission

    small = make_plan()
    dit = make_task("dit", {"classes": 3}, {})
    drawn = make_task("generate", {"images": 5}, {"dit": dit.fingerprint})
    cells = [
        replace(cell, tasks={"dit": dit.fingerprint, "generate:photos": drawn.fingerprint})
        for cell in small.cells
    ]
    plan = SmallPlan(
        study_name="small",
        cells=tuple(cells),
        tasks={task.fingerprint: task for task in (dit, drawn)},
    )
    with open_ledger(str(tmp_path / "results.db")) as ledger:
        ledger.studies.record(plan, submission())  # type: ignore[arg-type]  # the part that is read
        finish(ledger, dit)
        finish(ledger, drawn)
    folder = tmp_path / "runs" / drawn.id
    folder.mkdir(parents=True)
    np.save(folder / "samples.npy", np.zeros((5, 8, 8, 3), np.uint8))
    with open_ledger(str(tmp_path / "results.db"), create=False, read_only=True) as ledger:
        app: Any = application(ledger, tmp_path / "runs")
        html = TestClient(app, base_url="http://localhost").get("/study/small/point/1").text
    shown = re.findall(r'picture/sample/(\d)" alt="sample \d, class (\d)', html)
    assert shown == [("0", "0"), ("3", "0"), ("1", "1"), ("4", "1"), ("2", "2")]


# --- who may look -------------------------------------------------------------------------------


def test_another_host_name_is_refused(browser: TestClient) -> None:
    for name in ("evil.example", "localhost.evil.example", "127.0.0.1.evil.example", ""):
        assert browser.get("/", headers={"Host": name}).status_code == 400
    for name in ("localhost", "LOCALHOST:1", "127.0.0.1:8799", "[::1]:8799"):
        assert browser.get("/", headers={"Host": name}).status_code == 200


@pytest.mark.parametrize(
    ("header", "name"),
    [("a:1", "a"), ("[::1]:80", "::1"), ("[::1]", "::1"), ("A.b", "a.b"), ("", "")],
)
def test_the_name_in_a_host_header(header: str, name: str) -> None:
    assert host_of(header) == name


def test_nothing_but_reading_is_allowed(browser: TestClient) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
        assert browser.request(method, "/").status_code == 405


def test_without_the_token_nobody_looks(place: Place) -> None:
    with client(place, token="secret") as browser:
        for path in every_address(place):
            assert browser.get(path).status_code == 401, path
        assert browser.get("/?token=wrong").status_code == 401
        assert browser.get("/?token=").status_code == 401
        assert browser.get("/", headers={"Authorization": "Bearer secre"}).status_code == 401
        assert browser.get("/", headers={"Cookie": "sweepctl_token=x"}).status_code == 401
        assert browser.get("/", headers={"Authorization": "Bearer secret"}).status_code == 200
        moved = browser.get("/study/small?sort=p&token=secret", follow_redirects=False)
        assert moved.status_code == 303 and moved.headers["location"] == "/study/small?sort=p"
        cookie = moved.headers["set-cookie"]
        assert "HttpOnly" in cookie and "SameSite=strict" in cookie
        assert browser.get("/study/small").status_code == 200  # by the cookie


def test_the_token_cannot_send_a_browser_to_another_host(place: Place) -> None:
    with client(place, token="secret") as browser:
        moved = browser.get("//evil.example/?token=secret", follow_redirects=False)
        assert not moved.headers.get("location", "/").startswith("//")


@pytest.mark.parametrize(
    "path",
    [
        "/task/..%2f..%2fresults.db/picture/original/0",
        "/task/../../results.db/picture/original/0",
        "/task/{task}/picture/..%2foriginal/0",
        "/task/{task}/picture/weights.safetensors/0",
        "/task/{task}/picture/original/-1",
        "/task/{task}/picture/original/64",
        "/task/{task}/picture/original/0.npy",
        "/task/{task}/sheet/..%2f..%2fresult.json",
        "/task/{task}/sheet/0",
        "/task/{task}%00/picture/original/0",
        "/task/runs",
        "/task/%2e%2e",
        "/static/..%2f_server.py",
        "/static/vendor.toml",
        "/static/../_server.py",
        "/study/..%2f..%2fetc",
        "/study/small/point/99",
        "/study/small/point/1e3",
        "/study/nothing",
        "/study/nothing/live",
        "/study/small/figure.json?show=../../etc/passwd",
        "/nothing",
    ],
)
def test_tricks_with_addresses_find_nothing(place: Place, browser: TestClient, path: str) -> None:
    answer = browser.get(path.format(task=task_of(place, "reconstruct")))
    assert answer.status_code == 404
    assert "Traceback" not in answer.text


# --- hostile names ------------------------------------------------------------------------------

EVIL = (
    "\"><script>alert('1')</script><img src=x onerror=alert(2)>&amp;\u202egnol\u202c" + "A" * 3000
)


def hostile(plan: Plan) -> Plan:
    """The same plan with labels that look like markup."""
    tasks = {name: replace(task, label=EVIL) for name, task in plan.tasks.items()}
    return replace(plan, tasks=tasks)


def test_hostile_names_show_as_text(tmp_path: Path) -> None:
    text = STUDY.replace("Does E help?", json.dumps(EVIL))
    text = text.replace("name: E helps", f"name: {json.dumps(EVIL)}")
    evil = fill(tmp_path, text=text, change=hostile, cells=3)
    task = running(evil, 4)
    log = evil.runs / task.id / "attempts" / "1" / "log.txt"
    log.write_text(f"{EVIL}\nloss NaN\n\x1b[31m\x00\ud83d".encode(errors="replace").decode() + "\n")
    with open_ledger(evil.database) as ledger:
        from ledger_plans import outcome

        ended = outcome(task, 1, "failed", failure="error", message=EVIL)
        ledger.attempts.finish(ended)
    with client(evil) as browser:
        wait_for_laws(browser)
        pages = [
            *("/", "/study/small", "/study/small/fits", "/study/small/point/4", "/cluster"),
            *(f"/task/{task.id}", "/study/small/compare?cell=1&cell=2"),
            f"/study/small/live?where={'%3Cscript%3E'}",
        ]
        for path in pages:
            answer = browser.get(path)
            assert answer.status_code == 200, path
            links = Links(answer.text)
            assert links.inline == [] and "x" not in links.targets, path
            assert "<script>alert" not in answer.text and "<img src=x" not in answer.text, path
        assert "loss NaN" in browser.get(f"/task/{task.id}").text
        figure = browser.get("/study/small/figure.json").text
        assert "<script" not in figure
        missing = browser.get("/study/%3Cscript%3Ealert(1)%3C%2Fscript%3E")
        assert missing.status_code == 404 and "<script>alert" not in missing.text


@given(st.text())
def test_json_inside_a_page_closes_no_element(text: str) -> None:
    written = plain_json({"name": text})
    assert not set("<>&") & set(written)
    assert json.loads(written) == {"name": text}


# --- small things -------------------------------------------------------------------------------


def test_the_code_of_others_is_what_its_list_says() -> None:
    listed = tomllib.loads((STATIC / "vendor.toml").read_text())["file"]
    for entry in listed:
        data = static_bytes(entry["name"])
        assert hashlib.sha256(data).hexdigest() == entry["sha256"], entry["name"]
        assert (STATIC / entry["licence_file"]).stat().st_size > 200
    own = {"look.css", "app.js", "mark.svg", "vendor.toml"}
    known = own | {entry["name"] for entry in listed} | {entry["licence_file"] for entry in listed}
    assert {path.name for path in STATIC.iterdir()} == known


def test_nothing_of_ours_names_another_host() -> None:
    templates = (STATIC.parent / "templates").glob("*.html")
    for path in [STATIC / "app.js", STATIC / "look.css", *templates]:
        found = re.findall(r"(?:https?:)?//[\w.]+", path.read_text())
        assert [one for one in found if "." in one and one[:2] == "//"] == [], path
        assert [one for one in found if one.startswith("http")] == [], path
    assert "sendChartToCloud" in (STATIC / "app.js").read_text()


@given(st.lists(st.tuples(st.floats(1, 9), st.floats(-9, 9)), min_size=1, max_size=20))
def test_nothing_beats_the_pareto_front_and_it_beats_the_rest(
    points: list[tuple[float, float]],
) -> None:
    front = front_of([(cost, -value) for cost, value in points])

    def beats(one: tuple[float, float], other: tuple[float, float]) -> bool:
        return one[0] <= other[0] and one[1] >= other[1] and one != other

    for place in front:
        assert not any(beats(point, points[place]) for point in points)
    for point in points:
        assert any(points[place] == point or beats(points[place], point) for place in front)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        (0.0, "0"),
        (31.5293, "31.53"),
        (898.84, "898.8"),
        (0.85311, "0.8531"),
        (123456, "123\u2009456"),
        (1e-9, "1.000e-09"),
        (math.nan, "nan"),
        (-math.inf, "-inf"),
        ("a<b", "a<b"),
        ([1, 2], "[1, 2]"),
        (True, "true"),
    ],
)
def test_values_are_written_with_four_digits(value: object, text: str) -> None:
    assert brief(value) == text


def test_sizes_and_spans_are_for_people() -> None:
    assert [size(value) for value in (0, 1023, 2048, 5 * 2**30)] == [
        *("0 B", "1023 B", "2.0 KiB", "5.0 GiB")
    ]
    assert [span(value) for value in (4.21, 97, 3700, 90_000)] == [
        *("4.2 s", "1 min 37 s", "1 h 1 min", "1 d 1 h")
    ]
    assert [large(value) for value in (454_275, 43.11e6, 12)] == ["454\u2009k", "43.1\u2009M", "12"]


def test_other_hosts_get_a_token_and_loopback_does_not() -> None:
    here = address(host="127.0.0.1", port=8799)
    assert here.token == "" and here.url == "http://127.0.0.1:8799/"
    assert here.tunnel.startswith("ssh -L 8799:localhost:8799 ")
    there = address(host="0.0.0.0", port=80, root="/proxy")
    assert len(there.token) > 40 and there.url.endswith(f":80/proxy/?token={there.token}")
    assert there.token != address(host="0.0.0.0", port=80).token
    assert address(host="::1", port=1).url == "http://[::1]:1/"
    assert "0.0.0.0" not in names_of("0.0.0.0") and "extra" in names_of("0.0.0.0", ["Extra"])


def test_a_unix_socket_is_for_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "ui.sock"
    first = listen_at(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(UsageError, match="another server listens"):
        listen_at(path)
    first.close()
    listen_at(path).close()  # what a dead server left is taken away
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="no socket"):
        listen_at(tmp_path / "file")


def test_a_port_that_is_taken_is_said() -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"port {port}"):
            listen("127.0.0.1", port)


def test_behind_a_proxy_every_link_has_the_path_before_it(place: Place) -> None:
    with client(place, root="/user/me/proxy/8799") as browser:
        for path in ("/user/me/proxy/8799/study/small", "/study/small"):  # kept or taken away
            answer = browser.get(path)
            assert answer.status_code == 200
            ours = [one for one in Links(answer.text).targets if one.startswith("/")]
            assert ours and all(one.startswith("/user/me/proxy/8799/") for one in ours)
