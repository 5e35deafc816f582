"""Each text here is what the program really wrote when the fault was made on purpose (RELION 3.1.3)."""

import pytest

from scipion_cloud.controller.failures import explain, explain_movies, last_meaningful_line

GAIN = """\
Correcting beam-induced motions using our own implementation ...
000/??? sec ~~(,_,">     [oo]fn_mic: m0.mrcs nx = 512 ny = {ny} gain nx = {gx} gain ny = {gy}
in: ./src/motioncorr_runner.cpp, line 1065
ERROR:
The size of the image and the size of the gain reference do not match. Make sure
=== Backtrace  ===
relion_run_motioncorr(main+0x4f) [0x562629a29baf]
==================
"""
TRUNCATED_TIFF = """\
TIFFFetchDirectory: Can not read TIFF directory count.
TIFFReadDirectory: Failed to read directory at offset 2097408.
Skipped trunc.tif: too few frames (1 < 3) after grouping . Probably the movie is
"""
NOT_A_TIFF = """\
text.tif: Not a TIFF or MDI file, bad magic number 25960 (0x6568).
in: ./src/image.h, line 301
ERROR:
Image::openFile cannot open: text.tif
"""


@pytest.mark.parametrize(
    ("log", "words"),
    [
        ("OSError: [Errno 28] No space left on device", ["disk is full", "start the run again"]),
        ("sqlite3.OperationalError: database or disk is full", ["disk is full"]),
        (GAIN.format(ny=512, gx=100, gy=100), ["100 x 100", "512 x 512", "recorded with these movies"]),
        (GAIN.format(ny=256, gx=256, gy=512), ["256 x 512", "512 x 256", "rotation to 90 or 270"]),
        (TRUNCATED_TIFF, ["only 1 readable frame ", "not complete", "Copy it again"]),
        (NOT_A_TIFF, ["cannot be read", "Copy it again"]),
        (
            "ERROR: \nCannot read file gone.mrcs It does not exist",
            ["gone.mrcs is missing", "Upload it again"],
        ),
        (
            "ERROR: \nMicrographModel::read: insufficient general information in o/m0.star",
            ["disk is probably full"],
        ),
        ("Command 'relion_run_motioncorr' died with <Signals.SIGKILL: 9>.", ["memory"]),
        ("terminate called after throwing an instance of 'std::bad_alloc'", ["memory"]),
    ],
)
def test_known_faults_are_told_in_plain_words(log: str, words: list[str]) -> None:
    text = explain(log)
    assert all(word in text for word in words), text
    assert "Backtrace" not in text


def test_a_full_disk_outweighs_the_errors_that_it_causes() -> None:
    assert "disk is full" in explain(NOT_A_TIFF + "No space left on device\n")


def test_an_unknown_fault_shows_the_last_meaningful_line_and_what_to_do() -> None:
    log = "\x1b[31m2026-11-20 11:00:01,123 ERROR: the flux capacitor is empty\x1b[0m\n====\n ...~~(,_,\n"
    text = explain(log)
    assert "the flux capacitor is empty." in text
    assert "administrator" in text


def test_a_silent_end_is_told_too() -> None:
    assert "without a message" in explain("")
    assert "memory" in explain("", signal=9)
    assert "signal 15" in explain("all is well", signal=15)
    assert "time limit of 2 h" in explain(
        "all is well", reason="stopped at its time limit of 2 h; ask for more hours"
    )


STDOUT = """\
Processing movie: Runs/000067_ProtRelionMotioncor/tmp/movie_000001/a.tiff
 Correcting beam-induced motions using our own implementation ...
Processing movie: Runs/000067_ProtRelionMotioncor/tmp/movie_000002/text.tiff
 Correcting beam-induced motions using our own implementation ...
Processing movie: Runs/000067_ProtRelionMotioncor/tmp/movie_000003/b.tiff
 Correcting beam-induced motions using our own implementation ...
fn_mic: b.tiff nx = 512 ny = 512 gain nx = 100 gain ny = 100
Processing movie: Runs/000067_ProtRelionMotioncor/tmp/movie_000004/odd.tiff
Erasing.....movieFolder: Runs/000067_ProtRelionMotioncor/tmp/movie_000004
"""
STDERR = f"""\
sh: 1: gs: not found
 ERROR in executing: gs -sDEVICE=pdfwrite
 + Will make an empty PDF-file in output/logfile.pdf
{NOT_A_TIFF}
relion_run_motioncorr(main+0x4f) [0x55dd1ed9abaf]
ERROR processing movie: text.tiff
ERROR processing movie: b.tiff
coreAllocateReuse:Cannot allocate a negative number of bytes
ERROR processing movie: odd.tiff
"""


@pytest.mark.parametrize(
    ("stem", "words"),
    [
        ("a", "no result"),  # it went well, so there is nothing to tell
        ("text", "cannot be read"),
        ("b", "100 x 100"),
        ("odd", "cannot be read"),  # a message that does not name the movie
        ("ext", "no result"),  # a part of a name is another name
    ],
)
def test_a_movie_is_judged_by_its_own_part_of_the_log(stem: str, words: str) -> None:
    assert words in explain_movies(STDOUT + STDERR, [stem, "a"])[stem]


def test_a_very_long_line_is_cut() -> None:
    assert len(last_meaningful_line("x" * 10_000)) <= 301


def test_thousands_of_failed_movies_are_explained_in_one_go() -> None:
    stems = [f"movie_{n}" for n in range(3000)]
    trouble = "gs\nCannot read file {0}.tiff It does not exist\nERROR processing movie: {0}.tiff\n"
    log = "".join(trouble.format(stem) for stem in stems)
    reasons = explain_movies(log, stems)
    assert all(f"{stem}.tiff is missing" in reason for stem, reason in reasons.items())
