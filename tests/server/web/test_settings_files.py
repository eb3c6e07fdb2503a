"""The files behind the page of settings: whatever the disk refuses is said on the page."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from proxy.config.source import ConfigFiles
from proxy.server.web.settings_files import NotWritten, SettingsFiles, Texts


def test_a_folder_that_cannot_be_opened_is_said(tmp_path: Path) -> None:
    """One of mode 0300 lets nobody lock it, but root; a missing one does so for root too."""
    folder = tmp_path / "gone"
    files = ConfigFiles(folder / "routing_rules.yaml", None, {"PROXY_KEYS_FILE": str(folder / "keys")})
    settings = SettingsFiles(files, lambda: f"sqlite:///{tmp_path}/usage.db")
    with pytest.raises(NotWritten, match="gone cannot be read by the server: no such file or directory"):
        settings.save(Texts("version: 1\n", None, "x"))
    with pytest.raises(NotWritten, match="cannot be read by the server"):
        settings.set_key("OPENAI_API_KEY", "k")
    if os.geteuid() != 0:
        folder.mkdir(0o300)
        with pytest.raises(NotWritten, match="permission denied"):
            settings.save(Texts("version: 1\n", None, "x"))
