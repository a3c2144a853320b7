"""`python app.py`: its address and its limits."""

from __future__ import annotations

import pytest

import app


def test_a_port_that_is_taken_is_one_sentence() -> None:
    pytest.importorskip("gradio")
    from ss4d.app.server import listen

    with listen("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(ValueError, match=f"port {port} .*in use.*: choose another --port"):
            listen("127.0.0.1", port)
    with pytest.raises(ValueError, match="port 70000"):
        listen("127.0.0.1", 70000)


def test_a_model_that_is_not_there_is_said_at_the_start(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main(["--model", "checkpoints/typo"]) == 1
    assert "checkpoints/typo" in capsys.readouterr().err


@pytest.mark.parametrize("limit", ["--max-frames", "--max-seconds", "--max-megabytes"])
def test_limits_of_nothing_are_refused(limit: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        app.parse_arguments([limit, "0"])
    assert f"{limit} must be at least 1, but it is 0" in capsys.readouterr().err
