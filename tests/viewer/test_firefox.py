"""The player in Firefox: it opens from disk, shows what the rasteriser makes, and takes keys."""

from __future__ import annotations

from pathlib import Path

import pytest
from firefox import firefox, opened_page
from player_pictures import PSNR_MIN, picture, psnr, rasterized

from ss4d.cameras import Orbit
from ss4d.gaussians import GaussianSequence

ARROW_RIGHT, END = "\ue014", "\ue010"


@pytest.mark.slow
@pytest.mark.skipif(firefox() is None, reason="needs Firefox and a display: apt-get install firefox-esr xvfb")
def test_it_opens_from_disk_and_matches_the_rasterizer(
    result: Path, sequence: GaussianSequence, orbit: Orbit, tmp_path: Path
) -> None:
    binary = firefox()
    assert binary
    with opened_page(binary, tmp_path) as page:
        page.call("WebDriver:SetWindowRect", width=450, height=450)
        page.open(result / "player.html")
        for key, frame in ((None, 0), (ARROW_RIGHT, 1), (END, 3)):
            if key:
                page.press(key)
            page.wait(f"!!ss4d.player && ss4d.player.index === {frame} && document.body.classList.contains('ready')")
            shown = picture(page)
            expected = rasterized(sequence[frame], orbit, size=(shown.shape[0], shown.shape[1]))
            assert psnr(shown, expected) > PSNR_MIN
        assert not page.evaluate("document.body.classList.contains('failed')")
        requests = "performance.getEntriesByType('resource').filter((e) => !/^(data|blob):/.test(e.name)).length"
        assert page.evaluate(requests) == 0
