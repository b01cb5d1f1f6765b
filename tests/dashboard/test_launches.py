"""Trainings started from the dashboard: the command, their output, and what is left when one never starts."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import get_args, get_type_hints

import psutil
import pytest
from app_pages.runs.tables import option_title
from shared import launches
from shared.plain_text import plain

from pddm_lab.config import OFFLINE_TRUNKS, PRESETS, TrainConfig
from pddm_lab.errors import ConfigError, RunError


def launch(folder: Path, output: str = "", pid: int = 2**22 - 1) -> launches.Launch:
    folder.mkdir(parents=True, exist_ok=True)
    one = launches.Launch("some", pid, 0.0, folder)
    one.log.write_bytes(output.encode())
    return one


def test_flags_are_those_of_the_command_line() -> None:
    assert launches.flags({"steps": 5, "run_name": "a b", "freeze_trunk": False, "deterministic": True}) == [
        "--steps", "5", "--run-name", "a b", "--no-freeze-trunk", "--deterministic",
    ]  # fmt: skip


def test_of_a_progress_bar_only_its_last_state_is_kept(tmp_path: Path) -> None:
    bar = "trunk features:   7%|▋  | 128/1797 [00:03<00:36]\rtrunk features:  11%|█   | 192/1797 [00:03]"
    one = launch(tmp_path, f"digits: 1797 items.\n{bar}")
    assert one.lines() == ["digits: 1797 items.", "trunk features:  11%|█   | 192/1797 [00:03]"]
    assert one.progress() == ("trunk features", 192, 1797)


@pytest.mark.parametrize("output", ["", "Run: here\n", "embed unseen: 0it [00:00, ?it/s]"])
def test_output_without_a_bar_has_no_progress(tmp_path: Path, output: str) -> None:
    assert launch(tmp_path, output).progress() is None


def test_a_process_that_is_gone_or_whose_number_another_has_is_not_alive(tmp_path: Path) -> None:
    assert not launch(tmp_path).alive
    assert not launch(tmp_path, pid=os.getpid()).alive


@pytest.mark.parametrize(
    ("own", "typed", "answer"),
    [
        ("folder", "~nosuchuser/pictures", None), ("folder", "a\0b", "Enter the folder"), ("folder", " ", "Enter"),
        ("manifest", "~nosuchuser/split.csv", None), ("manifest", "", "Enter the CSV file"),
    ],
)  # fmt: skip
def test_a_path_that_cannot_be_is_one_sentence(
    open_page, monkeypatch, own: str, typed: str, answer: str | None
) -> None:
    started: list = []
    monkeypatch.setattr(launches, "start", started.append)
    app = open_page("runs")
    app.selectbox(key="new_data").select(own).run()
    app.text_input(key=f"new_{own}").set_value(typed).run()
    app.button(key="new_start").click().run()
    assert not app.exception
    assert [error.value.startswith(answer) for error in app.error] == ([True] if answer else [])
    assert [one["dataset"] for one in started] == ([] if answer else [f"{own}:{typed}"])


def test_forgetting_leaves_nothing(tmp_path: Path) -> None:
    one = launch(tmp_path, "x")
    one.forget()
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_choice_or_a_taken_name_starts_nothing(runs_folder: Path) -> None:
    with pytest.raises(ConfigError, match="--steps"):
        launches.start({"preset": "quick", "steps": 0})
    for number in (float("nan"), float("inf"), 10**400):
        with pytest.raises(ConfigError, match="--lr expects a finite number"):
            launches.start({"preset": "quick", "lr": number})
    (runs_folder / "taken" / "pictures").mkdir(parents=True)
    with pytest.raises(RunError, match="exists already"):
        launches.start({"preset": "quick", "run_name": "taken"})
    assert launches.launches() == []


def test_the_form_offers_every_loss_and_similarity_of_the_configuration(runs_folder: Path, open_page) -> None:
    app = open_page("runs")
    for field in ("loss", "similarity"):
        values = get_args(get_type_hints(TrainConfig)[field])
        box = app.selectbox(key=f"new_{field}_quick")
        assert box.options == [option_title(field, value) for value in values] and len(set(box.options)) == len(values)
        assert box.value == getattr(PRESETS["quick"], field)


def test_the_form_offers_the_trunks_that_need_no_network_and_the_preset_s_own(open_page, monkeypatch) -> None:
    started: list = []
    monkeypatch.setattr(launches, "start", started.append)
    app = open_page("runs")
    assert app.selectbox(key="new_trunk_quick").options == [*OFFLINE_TRUNKS]
    app.selectbox(key="new_trunk_quick").select(OFFLINE_TRUNKS[2]).run()
    app.button(key="new_start").click().run()
    assert [one["trunk"] for one in started] == [OFFLINE_TRUNKS[2]]
    app.radio(key="new_preset").set_value("paper").run()
    assert app.selectbox(key="new_trunk_paper").value == "googlenet"


def test_a_data_set_that_is_not_downloaded_says_where_to_get_it(open_page, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PDDM_LAB_DATA", str(tmp_path))
    app = open_page("runs")
    app.selectbox(key="new_data").select("caltech101").run()
    texts = [caption.value for caption in app.caption]
    assert any(plain("Not here yet. Get caltech-101.zip") in text for text in texts), texts
    app.selectbox(key="new_data").select("cub200").run()
    assert any("Will be downloaded first: 1.1 GB" in caption.value for caption in app.caption)


def test_a_half_written_record_is_left_for_later(runs_folder: Path) -> None:
    (runs_folder / ".launches").mkdir()
    (runs_folder / ".launches" / "a.json").write_text('{"name": "a", ')
    assert launches.launches() == []


def test_a_training_that_never_starts_shows_the_reason_on_the_page(
    runs_folder: Path, open_page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launched = launches._launch

    def halted(root: Path, name: str, words: list[str]) -> launches.Launch:
        """Started, and halted, so that it is there when the page shows it."""
        one = launched(root, name, words)
        psutil.Process(one.pid).suspend()
        return one

    monkeypatch.setattr(launches, "_launch", halted)
    app = open_page("runs")
    app.selectbox(key="new_data").select("folder").run()
    app.text_input(key="new_folder").set_value(str(tmp_path / "nothing here")).run()
    app.button(key="new_start").click().run()
    assert not app.exception
    assert "is starting" in app.markdown[0].value
    started = launches.launches()[0]
    psutil.Process(started.pid).resume()
    end = time.monotonic() + 600
    while started.alive and time.monotonic() < end:
        time.sleep(0.2)
    app.run()
    assert app.error[0].value == plain(started.lines(1)[0])
    assert "nothing here" in app.error[0].value
    app.button(key=f"dismiss_{started.name}").click().run()
    assert launches.launches() == []
    assert not app.error


def test_a_taken_name_is_named_below_its_field_and_the_next_one_is_proposed(
    open_page, runs_folder: Path, monkeypatch
) -> None:
    started: list = []
    monkeypatch.setattr(launches, "_launch", lambda root, name, words: started.append(words))
    (runs_folder / "digits").mkdir()
    (runs_folder / "digits" / "run.json").touch()
    app = open_page("runs")
    app.text_input(key="new_name").set_value("digits").run()
    assert any("There is a run digits already" in one.value for one in app.markdown)
    app.button(key="new_start").click().run()
    assert not started and not app.exception
    app.button(key="new_next_name").click().run()
    assert app.text_input(key="new_name").value == "digits-2"
    app.selectbox(key="new_loss_quick").select("margin").run()
    app.text_input(key="new_options_margin").set_value("beta=far").run()
    app.button(key="new_start").click().run()
    assert [error.value for error in app.error if "finite number as beta" in error.value] and not started
    app.text_input(key="new_options_margin").set_value("beta=1.1").run()
    app.button(key="new_start").click().run()
    (words,) = started
    assert words[words.index("--loss-options") + 1] == "beta=1.1" and words[words.index("--loss") + 1] == "margin"
