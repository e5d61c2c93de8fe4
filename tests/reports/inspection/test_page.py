"""The page of an inspection as a person sees it."""

from __future__ import annotations

from pathlib import Path

import pytest
from browser import open_page

from recyclelora.reports.inspection.writing import inspect_pair
from recyclelora.system.errors import UserError
from recyclelora.system.progress import Reporter


@pytest.mark.browser
def test_page_shows_defects_frequencies_and_samples(tmp_path: Path, make_config, gta2city: Path):
    (gta2city / "gta/images/00003.png").write_bytes(b"")
    config = make_config(
        "data.augment.crop=[64,64]", "data.sources.0.split=all", "data.source_val.split=all", "data.source_val.subset=1"
    )
    with pytest.raises(UserError):
        inspect_pair(config.data, config.cache, tmp_path, 0, Reporter(enabled=False), num_samples=3)
    with open_page((tmp_path / "inspect/gta2city/index.html").as_uri()) as page:
        assert page.title() == "Data: gta2city"
        assert "in 16 images" in page.inner_text("#verdict")
        assert "images/00003.png" in " ".join(page.locator("details[open]").all_inner_texts())
        warning = page.locator("details", has_text="class never trained")
        assert not warning.locator("table").is_visible()
        warning.locator("summary").click()
        assert warning.locator("table").is_visible()
        assert "road" in page.inner_text("#frequencies") and "never" in page.inner_text("#frequencies")
        images = page.locator("img")
        assert images.count() == 2 * page.locator("figure").count() > 0
        assert all(images.nth(i).evaluate("e => e.complete && e.naturalWidth === 192") for i in range(images.count()))
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
