"""Stages as a user meets them: what runs, what is skipped, what a failure and an interruption leave behind."""

from __future__ import annotations

import os
import re
import shutil
import signal
import time
from pathlib import Path

import pytest

from utils.child import Log

ROOT = Path(__file__).resolve().parents[2]


def ran(output: str) -> list[str]:
    """The names of the commands that were run and finished."""
    return re.findall(r"^   ([\w-]+): [\d.:]+(?: s)?$", output, re.MULTILINE)


def skipped(output: str) -> list[str]:
    return re.findall(r"^   ([\w-]+): done before \(.*\), skipped$", output, re.MULTILINE)


ALL = ["download", "manifests", "train-joint", "train-st", "decode", "export"]


def wait_for(path: Path, seconds: float = 20) -> str:
    """The text of a file as soon as there is some."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if path.exists() and (text := path.read_text().strip()):
            return text
        time.sleep(0.02)
    raise AssertionError(f"{path} did not appear")


def gone(pid: int, seconds: float = 10) -> bool:
    """Whether a process ends in time (a zombie counts as ended)."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


def test_runs_every_stage_once_and_skips_all_the_second_time(toy):
    first = toy.run()
    assert first.returncode == 0, first.stderr
    assert ran(first.stdout) == ALL
    assert re.findall(r"^== stage (\d): (\w+)$", first.stdout, re.MULTILINE)[0] == ("0", "Download")
    assert "log in exp/log/train-st.log" in first.stdout
    assert len(re.findall(r"^== stage \d took", first.stdout, re.MULTILINE)) == 5
    assert "en es\nsound" in toy.read("exp/log/manifests.log")
    second = toy.run()
    assert (second.returncode, ran(second.stdout), skipped(second.stdout)) == (0, [], ALL)


def test_works_from_another_folder_by_any_name(toy, tmp_path):
    done = toy.run("--stop-stage", "0", script=str(toy.folder / "run.sh"), cwd=tmp_path)
    assert done.returncode == 0 and ran(done.stdout) == ["download"]
    assert (toy.folder / "downloads" / "a.wav").exists()


def test_changed_option_repeats_only_what_depends_on_it(toy):
    toy.run()
    done = toy.run("--langs", "en")
    assert ran(done.stdout) == ["manifests", "train-joint", "train-st"]
    # training wrote the same bytes, so decoding has nothing new
    assert skipped(done.stdout) == ["download", "decode", "export"]
    assert toy.read("data/manifests") == "en\n"


def test_touched_input_is_no_change_but_another_content_is(toy):
    toy.run()
    wav = toy.folder / "downloads" / "a.wav"
    os.utime(wav, (1, 1))
    assert ran(toy.run().stdout) == []
    wav.write_text("noise\n")  # the same size
    assert "manifests" in ran(toy.run().stdout)


def test_missing_output_is_made_again(toy):
    toy.run()
    (toy.folder / "exp" / "hyp").unlink()
    assert ran(toy.run().stdout) == ["decode"]


def test_emptied_output_folder_is_made_again(toy):
    toy.run()
    (toy.folder / "downloads" / "a.wav").unlink()
    assert ran(toy.run().stdout) == ["download"]  # the folder was there


def test_logs_are_in_the_folder_of_the_option_exp(toy):
    script = toy.folder / "run.sh"
    script.write_text(script.read_text().replace("jobs=2 ", "exp=exp # models\njobs=2 "))
    assert toy.run("--stop-stage", "0", "--exp", "exp/other").returncode == 0
    assert (toy.folder / "exp/other/log/download.log").exists() and not (toy.folder / "exp/log").exists()
    assert ran(toy.run("--stop-stage", "0").stdout) == ["download"]  # each folder remembers what was done for it


def test_each_thing_that_is_asked_for_has_a_folder_of_its_own(toy):
    script = toy.folder / "run.sh"
    text = script.read_text().replace("jobs=2 ", "corpus=/dev/null # a file\njobs=2 ")
    text = text.replace(". parse_options.sh\n", '. parse_options.sh\nwork_in "en-$langs"\ncat "$corpus"\n')
    script.write_text(text)
    (toy.folder / "talks").write_text("a talk\n")
    assert "a talk" in toy.run("--langs", "de", "--corpus", "talks").stdout
    assert toy.read("en-de/exp/export") and (toy.folder / "downloads/a.wav").exists()
    assert not (toy.folder / "exp").exists() and not (toy.folder / "data").exists()
    assert ran(toy.run("--langs", "fr").stdout) == ALL
    assert skipped(toy.run("--langs", "de").stdout) == ALL
    assert ran(toy.run("--langs", "de", "--force").stdout) == ALL
    assert not (toy.folder / "en-de/exp/log/.done/.again").exists()


def test_a_link_to_the_script_elsewhere_fails(toy, tmp_path):
    script = toy.folder / "run.sh"
    relative = os.path.relpath(ROOT / "path.sh", toy.folder)
    script.write_text(script.read_text().replace(f'. "{ROOT}/path.sh"', f". {relative} || exit"))
    assert toy.run("--stop-stage", "0").returncode == 0
    (tmp_path / "elsewhere" / "deep").mkdir(parents=True)
    link = tmp_path / "elsewhere" / "deep" / "run.sh"
    link.symlink_to(script)
    done = toy.run("--stop-stage", "0", script=str(link))
    assert done.returncode != 0 and "path.sh" in done.stderr and "command not found" not in done.stderr


def test_sh_is_refused(toy):
    if "bash" in os.path.realpath(shutil.which("sh")):
        pytest.skip("sh is bash here")
    done = toy.run(shell="sh")
    assert done.returncode == 2 and "need bash: bash run.sh" in done.stderr and done.stderr.count("\n") == 1


def test_force_runs_everything_again(toy):
    toy.run()
    assert ran(toy.run("--force").stdout) == ALL
    assert ran(toy.run().stdout) == []


def test_a_range_of_stages_is_done_again(toy):
    toy.run()
    assert ran(toy.run("--stage", "6", "--stop-stage", "9").stdout) == ["decode", "export"]
    assert ran(toy.run("--stage", "6").stdout) == []


def test_forced_run_that_was_interrupted_does_not_start_over(toy):
    toy.run()
    (toy.folder / "downloads" / "a.wav").write_text("other\n")
    fails = ("--force", "--work", 'test "$s" != st && test ! -e fail')
    (toy.folder / "fail").touch()
    assert toy.run(*fails).returncode == 1
    (toy.folder / "fail").unlink()
    again = toy.run(*fails)
    assert again.returncode == 0, again.stderr
    assert skipped(again.stdout) == ["download", "manifests"]
    assert ran(again.stdout) == ["train-joint", "train-st", "decode", "export"]


def test_stage_out_of_order_names_the_input_and_the_stage(toy):
    done = toy.run("--stage", "6")
    assert done.returncode == 1
    assert "exp/*/averaged.pt does not exist: stage 5 (Training) makes it" in done.stderr
    assert done.stderr.count("\n") == 1
    assert "exp/hyp does not exist: stage 6 (Decoding)" in toy.run("--stage", "9").stderr


def test_failure_ends_the_run_with_the_command_to_resume(toy):
    done = toy.run("--work", "echo broken net; exit 3", "--jobs", "4")
    assert done.returncode == 3
    assert ran(done.stdout) == ["download", "manifests"]  # train-st, later in the same loop, did not start
    assert "broken net" in done.stdout and "broken net" in toy.read("exp/log/train-joint.log")
    assert "train-joint failed with status 3" in done.stderr
    assert done.stderr.endswith("to resume: bash run.sh --stage 5 --work 'echo broken net; exit 3' --jobs 4\n")
    resumed = toy.run("--stage", "5")
    assert ran(resumed.stdout) == ["train-joint", "train-st", "decode", "export"]


def test_command_that_makes_no_output_has_failed(toy):
    script = toy.folder / "run.sh"
    script.write_text(script.read_text().replace("-- cp exp/hyp exp/export", "-- true"))
    done = toy.run()
    assert done.returncode == 1
    assert "export failed because it ended without making exp/export" in done.stderr


def test_plain_command_that_fails_ends_the_run(toy):
    script = toy.folder / "run.sh"
    script.write_text(script.read_text().replace('stage 5 "T', 'stage 4 "LM" && false\nstage 5 "T'))
    done = toy.run()
    assert done.returncode == 1
    assert ran(done.stdout) == ["download", "manifests"]
    assert "stage 4 ended with status 1; to resume: bash run.sh --stage 4" in done.stderr


def test_a_word_that_is_none_of_the_known_ends_the_run_at_once(toy):
    script = toy.folder / "run.sh"
    script.write_text(
        script.read_text().replace("parse_options.sh\n", 'parse_options.sh\none_of --systems "$systems" "joint st"\n')
    )
    done = toy.run("--systems", "joint jiont")
    assert done.returncode == 2 and not ran(done.stdout)
    assert done.stderr.strip() == "error: --systems has 'jiont', which is none of: joint st."
    assert toy.run("--systems", "st", "--stop-stage", "0").returncode == 0


def test_last_stage_left_out_is_success(toy):
    done = toy.run("--stop-stage", "1")
    assert (done.returncode, ran(done.stdout)) == (0, ["download", "manifests"])


def test_missing_command_is_one_sentence(toy):
    script = toy.folder / "run.sh"
    script.write_text(script.read_text().replace("-- cp exp/hyp", "-- no-such-program exp/hyp"))
    toy.run("--stop-stage", "8")
    done = toy.run()
    assert done.returncode == 1
    assert done.stderr == "error: The command no-such-program is not installed or not on PATH.\n"


def test_full_disk_names_the_log(tmp_path):
    log = Log(tmp_path / "x.log", append=False)
    log.file = open("/dev/full", "wb", buffering=0)  # noqa: SIM115
    with pytest.raises(OSError, match="No space left") as caught:
        log.write(b"a line\n")
    assert caught.value.filename == "/dev/full"
    log.file.close()


def test_ctrl_c_ends_the_command_with_one_line_and_130(toy):
    process = toy.start("--work", "echo $$ >pid; trap 'echo cleaned >cleaned; exit 1' INT; while :; do sleep 0.1; done")
    pid = int(wait_for(toy.folder / "pid"))
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=20)
    assert process.returncode == 130
    assert output.count("interrupted") == 1 and "to resume: bash run.sh --stage 5" in output
    assert gone(pid)
    assert (toy.folder / "cleaned").exists()  # it had the chance to
    again = toy.run()
    assert skipped(again.stdout) == ["download", "manifests"]
    assert again.returncode == 0


def test_ctrl_c_between_two_commands_is_no_success(toy):
    script = toy.folder / "run.sh"
    script.write_text(script.read_text("utf-8") + 'stage 10 "Long" && { touch began; while :; do :; done; }\n', "utf-8")
    process = toy.start()
    while not (toy.folder / "began").exists():
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    output = process.communicate(timeout=20)[0]
    assert process.returncode == 130 and "finished" not in output
    assert output.endswith("stage 10 ended with status 130; to resume: bash run.sh --stage 10\n")


def test_kill_9_leaves_no_stamp_and_no_orphan(toy):
    process = toy.start("--work", "echo $$ >pid; while :; do sleep 0.1; done")
    pid = int(wait_for(toy.folder / "pid"))
    os.killpg(process.pid, signal.SIGKILL)  # bash and utils.run; the command is in a group of its own
    process.wait()
    process.stdout.close()
    assert gone(pid)
    again = toy.run()
    assert again.returncode == 0, again.stderr
    assert "ending what an interrupted run left behind" in again.stdout  # the subshell that ran the loop
    assert skipped(again.stdout) == ["download", "manifests"]
    assert ran(again.stdout) == ["train-joint", "train-st", "decode", "export"]
    assert toy.read("exp/log/train-joint.log").count("# 20") == 2  # the log of what was killed is continued


def test_killing_the_shell_alone_ends_the_command_too(toy):
    process = toy.start("--work", "echo $$ >pid; while :; do sleep 0.1; done")
    pid = int(wait_for(toy.folder / "pid"))
    process.kill()
    process.wait()
    process.stdout.close()
    assert gone(pid)


def test_second_run_at_the_same_time_waits(toy):
    first = toy.start("--work", "touch running; while [ ! -e go ]; do sleep 0.05; done")
    end = time.monotonic() + 20
    while not (toy.folder / "running").exists() and time.monotonic() < end:
        time.sleep(0.02)
    second = toy.start("--work", "touch running; while [ ! -e go ]; do sleep 0.05; done")
    time.sleep(2)
    (toy.folder / "go").touch()
    outputs = [process.communicate(timeout=30)[0] for process in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0)
    assert "train-joint: waiting for another run of it" in outputs[1]
    logs = [toy.read(f"exp/log/{name}.log").count("# 20") for name in ("train-joint", "train-st")]
    assert logs == [1, 1]  # each ran once


def test_progress_bars_do_not_flood_the_log(toy):
    bar = r"for i in 1 2 3 4 5 6 7 8 9; do printf '\r%d0 %%' $i; sleep 0.02; done; echo; echo trained"
    done = toy.run("--work", bar, "--systems", "joint")
    log = toy.read("exp/log/train-joint.log")
    assert "90 %\ntrained\n" in log and "80 %" not in log and "\r" not in log
    assert "90 %\ntrained\n" in done.stdout and "\r" not in done.stdout


def test_a_miniature_is_made_in_a_folder_of_its_own(toy):
    (toy.folder / "conf").mkdir()
    done = toy.run("--mini")
    assert done.returncode == 0, done.stderr
    assert (toy.folder / "mini/exp/hyp").exists() and not (toy.folder / "exp").exists()
    assert (toy.folder / "mini/conf").resolve() == (toy.folder / "conf").resolve()
    toy.run()
    assert (toy.folder / "exp/hyp").exists()
    failed = toy.run("--mini", "--work", "false", "--stage", "5", "--stop-stage", "5")
    assert failed.returncode != 0 and "--mini" in failed.stderr.partition("to resume: ")[2]
