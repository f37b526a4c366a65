import base64
import json
from itertools import count
from textwrap import dedent

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nbformat.v4 import new_code_cell, new_notebook, new_output

from scorebook import jobs, results
from scorebook.chapters import chapters
from scorebook.files import read_json

PNG = base64.b64encode(b"not really a png").decode()
FINITE = st.floats(allow_nan=False, allow_infinity=False)

CELLS = f"""\
# %%
from IPython.display import Image, display
from scorebook import record
record("mean", 0.5 + seed)
record("which", f"{{profile}} {{data[0]}}")
assert data != ["broken"]

# %% mystnb={{"figure": {{"name": "fig-a", "caption": "A."}}}}
display({{"image/png": "{PNG}"}}, raw=True)
"""


def notebook(**numbers):
    outputs = [output(name, {"number": {"value": value, "rtol": rtol}}) for name, (value, rtol) in numbers.items()]
    return new_notebook(cells=[new_code_cell("x", outputs=outputs)])


def output(name, payload):
    return new_output("display_data", metadata={"scorebook": {"name": name, **payload}})


@pytest.fixture
def executed(book):
    """Writes the executed notebook of chapter 01_a."""
    book.chapter("01_a", "")
    return lambda **numbers: book.write("notebooks/01_a.ipynb", json.dumps(notebook(**numbers)))


def test_numbers_and_data_are_found():
    entry = {"name": "digits", "sha256": "ab"}
    found = notebook(b=(1, 0.0), a=([1.0, 2.0], 0.1))
    found.cells.append(new_code_cell(outputs=[output("data-digits-train", {"data": entry})]))
    assert results.numbers(found) == {"a": {"value": [1.0, 2.0], "rtol": 0.1}, "b": {"value": 1, "rtol": 0.0}}
    assert results.data(found) == [entry]


def test_a_name_is_recorded_once():
    found = notebook(a=(1, 0.0))
    found.cells += notebook(a=(1, 0.0)).cells
    with pytest.raises(ValueError, match="'a' is recorded twice"):
        results.numbers(found)


def test_figures_are_found():
    image = new_output("display_data", {"image/png": PNG})
    slider = new_output("execute_result", {"image/png": PNG, "text/html": "<frame-slider></frame-slider>"})
    named = {"mystnb": {"figure": {"name": "fig-a"}}}
    cells = [
        new_code_cell(outputs=[image], metadata=named),
        new_code_cell(outputs=[image]),  # shown, but no figure
        new_code_cell(outputs=[slider], metadata={"mystnb": {"figure": {"name": "fig-b"}}}),
        new_code_cell(metadata={"mystnb": {"figure": {"name": "fig-c"}}}),  # nothing drawn yet
    ]
    found = results.figures(new_notebook(cells=cells))
    assert list(found) == ["fig-a", "fig-b"]
    assert set(found.values()) == {b"not really a png"}


@given(FINITE | st.lists(FINITE, min_size=1) | st.text() | st.booleans(), st.floats(0, 1))
def test_every_value_agrees_with_itself(value, rtol):
    assert results.agree(value, value, rtol)


@given(st.floats(1e-3, 1e6), st.sampled_from([-1, 1]), st.floats(1e-6, 0.5))
def test_tolerance_is_relative(value, sign, rtol):
    value *= sign
    assert results.agree(value * (1 + 0.9 * rtol), value, rtol)
    assert not results.agree(value * (1 + 1.1 * rtol), value, rtol)


@pytest.mark.parametrize(
    ("a", "b", "rtol", "same"),
    [
        (3e-17, -2e-17, 1e-3, True),  # rounding residues
        (2e-12, 0.0, 1e-3, False),
        ([100.0, 0.05], [100.0, 0.0], 1e-3, True),  # the maximum norm
        ([100.0, 0.2], [100.0, 0.0], 1e-3, False),
        ([1.0, 2.0], [1.0], 1.0, False),
        ([[1.0, 2.0]], [1.0, 2.0], 1.0, False),
        (1.0, [1.0], 1.0, False),
        (1000, 1001, 0.0, False),
        (1000, 1001, 0.01, True),
        ("grey", "gray", 1.0, False),
        (True, False, 1.0, False),
        ("1", 1, 1.0, False),
    ],
)
def test_agreement(a, b, rtol, same):
    assert results.agree(a, b, rtol) == same
    assert results.agree(b, a, rtol) == same


def test_comparison_lists_what_changed_what_is_missing_and_what_is_new(book, executed):
    executed(a=(1.0, 1e-3), b=(2.0, 1e-3), c=(list(range(40)), 0.0))
    results.update(book.root)
    assert results.compare(book.root) == []

    executed(a=(1.0009, 1e-3), c=([0.0] * 40, 1e-3), d=("text", 0.0))
    missing, changed, new = results.compare(book.root)
    assert missing == "01_a: b is committed as 2.0 and missing here."
    assert changed.startswith("01_a: c is [0.0, 0.0, 0.0")
    assert "(40) here and [0, 1, 2" in changed
    assert "more than 0.001 (relative)" in changed
    assert new == '01_a: d is new here, "text", and not committed.'


def test_comparison_notices_other_data_and_orphans(book, executed):
    path = executed(a=(1.0, 1e-3))
    results.update(book.root)
    book.write("results/quick/09_gone.json", '{"numbers": {}, "manifest": {"data": []}}')
    found = notebook(a=(1.0, 1e-3))
    entry = {"name": "digits", "split": "train", "sha256": 64 * "0", "count": 9}
    found.cells[0].outputs.append(output("data-digits-train", {"data": entry}))
    path.write_text(json.dumps(found))
    assert results.compare(book.root) == [
        "09_gone: results/quick/09_gone.json has no chapter; delete it.",
        '01_a: data digits/train is new here, "9 images, 000000000000...", and not committed.',
    ]


def test_a_chapter_without_committed_numbers_is_one_line(book, executed):
    executed(a=(1.0, 1e-3), b=(2.0, 1e-3))
    assert results.compare(book.root) == ["01_a: results/quick/01_a.json is missing; make figures UPDATE=1 writes it."]


def test_update_is_sorted_and_repeatable(book, executed):
    executed(b=(1 / 3, 1e-3), a=("é", 0.0))
    results.update(book.root)
    path = book.root / "results" / "quick" / "01_a.json"
    first = path.read_bytes()
    assert read_json(path)["numbers"] == {"a": {"rtol": 0.0, "value": "é"}, "b": {"rtol": 1e-3, "value": 1 / 3}}
    assert first.index(b'"a"') < first.index(b'"b"')
    results.update(book.root)
    assert path.read_bytes() == first
    assert [p.name for p in path.parent.iterdir()] == ["01_a.json"]


def test_no_numbers_is_valid_json(book, executed):
    executed()
    results.update(book.root)
    assert read_json(book.root / "results" / "quick" / "01_a.json")["numbers"] == {}


def test_paper_jobs_go_on_after_a_failure_and_resume(book, capfd):
    book.chapter("01_a", CELLS, paper="[broken, good]")
    assert jobs.run(book.root) == 1
    output = capfd.readouterr().out
    assert "paper: 2 to run: 01_a/broken, 01_a/good" in output
    assert "01_a: cell 3 (from IPython.display import Image, display) failed with AssertionError" in output
    folder = book.root / "results" / "paper" / "01_a"
    assert sorted(p.name for p in folder.rglob("*")) == ["fig-a.png", "good", "good.json"]
    assert (folder / "good" / "fig-a.png").read_bytes() == b"not really a png"
    result = read_json(folder / "good.json")
    assert {name: entry["value"] for name, entry in result["numbers"].items()} == {"mean": 0.5, "which": "paper good"}
    assert {"data", "seed", "versions", "hardware", "seconds", "hash", "date", "profile"} == set(result["manifest"])
    assert str(book.root) not in json.dumps(result)

    assert jobs.run(book.root) == 1
    assert "paper: 1 to run: 01_a/broken" in capfd.readouterr().out


@pytest.fixture
def stand_in(monkeypatch):
    """Executes nothing: every job gets a notebook with one number, larger each time, and one figure named after it.

    While a job runs, the functions in the list that this returns are called with the number.
    """
    turn = count(1)
    meanwhile = []

    def launch(root, job, threads):
        number = next(turn)
        for function in meanwhile:
            function(number)
        found = notebook(turn=(number, 0.0))
        image = new_output("display_data", {"image/png": PNG})
        found.cells.append(new_code_cell(outputs=[image], metadata={"mystnb": {"figure": {"name": f"fig-{number}"}}}))
        job.target.parent.mkdir(parents=True, exist_ok=True)
        job.target.write_text(json.dumps(found))
        return 1.0

    monkeypatch.setattr(jobs, "launch", launch)
    return meanwhile


def test_paper_job_replaces_the_whole_result(book, stand_in):
    book.chapter("01_a", "", paper="[mnist, fashion]")
    assert jobs.run(book.root, names=["mnist"]) == 0
    assert jobs.run(book.root, names=["mnist"]) == 0
    folder = book.root / "results" / "paper" / "01_a"
    assert sorted(p.name for p in folder.rglob("*")) == ["fig-1.png", "mnist", "mnist.json"]
    assert jobs.run(book.root, names=["mnist"], force=True) == 0
    assert sorted(p.name for p in folder.rglob("*")) == ["fig-2.png", "mnist", "mnist.json"]
    assert read_json(folder / "mnist.json")["numbers"]["turn"]["value"] == 2


@pytest.mark.parametrize("earlier", [False, True])
@pytest.mark.parametrize("step", ["_write_figures", "replace"])
def test_an_interrupted_paper_job_is_out_of_date(book, stand_in, monkeypatch, step, earlier):
    book.chapter("01_a", "", paper="[mnist]")
    if earlier:
        assert jobs.run(book.root) == 0
    monkeypatch.setattr(jobs, step, lambda path, data: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        jobs.run(book.root, force=True)
    job = jobs.paper_job(book.root, chapters(book.root)[0], "mnist")
    assert not jobs.is_current(job)


def test_a_paper_job_is_signed_with_the_code_that_it_ran(book, stand_in):
    """The first job is edited while it runs, and dropped; the second starts after the edit, and is kept."""
    source = book.chapter("01_a", "# %%\nn = 1\n", paper="[mnist, fashion]")
    stand_in.append(lambda number: source.write_text(source.read_text().replace("n = 1", "n = 2")))
    assert jobs.run(book.root) == 1
    chapter = chapters(book.root)[0]
    assert not jobs.paper_job(book.root, chapter, "mnist").target.is_file()
    assert jobs.is_current(jobs.paper_job(book.root, chapter, "fashion"))


def test_a_broken_edit_stops_no_other_paper_job(book, stand_in, capfd):
    source = book.chapter("01_a", "# %%\nn = 1\n", paper="[mnist, fashion]")
    whole = source.read_text()
    stand_in.append(lambda number: source.write_text(whole.replace("n = 1", "n = (") if number == 1 else whole))
    assert jobs.run(book.root) == 2
    assert capfd.readouterr().out.count("changed while it ran; run it again.") == 2
    assert jobs.run(book.root) == 0


@pytest.mark.parametrize(
    ("name", "reruns"),
    [
        ("notebooks/01_a.py", True),
        ("src/scoremachines/__init__.py", False),
        ("src/scoremachines/used.py", True),
        ("src/scoremachines/below.py", True),
        ("src/scoremachines/other.py", False),
        ("src/scorebook/new.py", False),
        ("results/paper/01_a/other.json", False),
        ("results/classifiers/mnist.safetensors", True),
        ("results/classifiers/other.safetensors", False),
    ],
)
def test_what_a_paper_job_depends_on(book, name, reruns):
    book.chapter("01_a", "# %%\nfrom scoremachines.used import something\nfolder = 'results/classifiers'\n")
    for module, code in {"__init__": "", "used": "from .below import more\n", "below": "", "other": ""}.items():
        book.write(f"src/scoremachines/{module}.py", code)
    before = jobs.paper_job(book.root, chapters(book.root)[0], "mnist").hash
    path = book.root / name
    book.write(name, (path.read_text() if path.is_file() else "") + "\nedited = 1\n")
    assert (jobs.paper_job(book.root, chapters(book.root)[0], "mnist").hash != before) == reruns


@pytest.mark.parametrize(
    ("name", "old", "new", "reruns"),
    [
        ("notebooks/01_a.py", "n = 1", "n = 2", True),
        ("notebooks/01_a.py", "n = 1", "n = 1.0", True),
        ("notebooks/01_a.py", "n = 1", "n=(1)  # of them", False),
        ("notebooks/01_a.py", "A\nn", "A\n\n# %%\nn", True),  # another cell
        ("src/scoremachines/used.py", "return 1", "return 2", True),
        ("src/scoremachines/used.py", "return 1", "print()\n        return 1", True),
        ("src/scoremachines/used.py", "return 1", "# one\n        return 1", False),
        ("src/scoremachines/used.py", "A module", "The module", False),
        ("src/scoremachines/used.py", '"""A module."""', "", False),
        ("src/scoremachines/used.py", "A class", "The class", False),
        ("src/scoremachines/used.py", '"""A method."""', "# A method", False),
        ("requirements.lock", "numpy==1", "numpy==2", True),
        ("requirements.lock", "torch==1", "torch==2", True),
        ("requirements.lock", "PyWavelets==1", "PyWavelets==2", True),
        ("requirements.lock", "scikit-learn==1", "scikit-learn==2", True),
        ("requirements.lock", "pillow==1", "pillow==2", False),  # only another module imports it
        ("requirements.lock", "unused==1", "unused==2", False),
        ("requirements.lock", "unused==1", "more==1\nunused==1", False),
        ("requirements.lock", "unused==1\n", "", False),
    ],
)
def test_a_paper_job_depends_on_statements_and_imported_packages(book, name, old, new, reruns):
    used = """
        from .files import extra

        class A:
            '''A class.'''

            def f(self):
                '''A method.'''
                return 1
    """.replace("'''", '"""')
    book.chapter("01_a", "# %%\nfrom scoremachines.used import A\nn = 1\n")
    book.write("src/scoremachines/used.py", '"""A module."""\n' + dedent(used))
    book.write("src/scoremachines/files.py", "def extra(name): ...\n\ndef digits():\n    extra('sklearn.datasets')\n")
    book.write("src/scoremachines/other.py", "import PIL\n")
    pins = ("numpy", "pillow", "PyWavelets", "scikit-learn", "torch", "unused")
    book.write("requirements.lock", "".join(f"{pin}==1\n" for pin in pins))
    before = jobs.paper_job(book.root, chapters(book.root)[0], "mnist").hash
    text = (book.root / name).read_text()
    assert text.count(old) == 1
    book.write(name, text.replace(old, new))
    assert (jobs.paper_job(book.root, chapters(book.root)[0], "mnist").hash != before) == reruns


def test_a_paper_job_leaves_out_what_shows_results(book):
    """Such a cell may change without a new run, since no job runs it."""
    shown = '\n# %% tags=["hide-input", "paper-results"]\nraise RuntimeError\n'
    source = book.chapter("01_a", CELLS + shown, paper="[good]")
    assert jobs.run(book.root) == 0
    source.write_text(source.read_text().replace("RuntimeError", "ValueError"))
    assert jobs.is_current(jobs.paper_job(book.root, chapters(book.root)[0], "good"))
    source.write_text(source.read_text().replace(', "paper-results"', ""))
    assert not jobs.is_current(jobs.paper_job(book.root, chapters(book.root)[0], "good"))


def test_unknown_paper_data_is_named(book):
    book.chapter("01_a", "", paper="[mnist]")
    with pytest.raises(ValueError, match=r"paper data \['cifar'\]"):
        jobs.run(book.root, names=["mnist", "cifar"])


def test_quick_figures_are_written(book):
    image = new_output("display_data", {"image/png": PNG})
    cell = new_code_cell(outputs=[image], metadata={"mystnb": {"figure": {"name": "fig-a"}}})
    book.chapter("01_a", "")
    book.write("notebooks/01_a.ipynb", json.dumps(new_notebook(cells=[cell])))
    assert results.write_figures(book.root) == 1
    assert (book.root / "_build" / "figures" / "01_a" / "fig-a.png").read_bytes() == b"not really a png"
