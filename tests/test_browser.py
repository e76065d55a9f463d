"""A reader's way: JupyterLab opens a notebook, runs it, and the explorer's slider changes it."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time

import nbformat
import pytest

from dmclib import paths

api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed"),
]
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
FLAGS += [f"--disable-{name}" for name in ("background-networking", "component-update", "sync")]
RUN_SECONDS = 300
NOTEBOOKS = ("00_start_here", "01_compressed_video")


@pytest.fixture
def lab(tmp_path):
    """Address of a JupyterLab on a copy of the project, so that a run writes nothing here."""
    shutil.copytree(paths.ROOT / "dmclib", tmp_path / "dmclib")
    for name in NOTEBOOKS:  # without outputs: an explorer that is seen is one that has been run
        notebook = nbformat.read(paths.NOTEBOOKS / f"{name}.ipynb", as_version=4)
        notebook.metadata.pop("widgets", None)
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
        (tmp_path / "notebooks").mkdir(exist_ok=True)
        nbformat.write(notebook, tmp_path / "notebooks" / f"{name}.ipynb")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex(8)
    command = [sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root"]
    command += [f"--ServerApp.port={port}", f"--IdentityProvider.token={token}"]
    command += [f"--ServerApp.root_dir={tmp_path / 'notebooks'}"]
    home = {f"JUPYTER_{name}_DIR": str(tmp_path / name) for name in ("CONFIG", "RUNTIME")}
    home |= {"JUPYTERLAB_SETTINGS_DIR": str(tmp_path), "JUPYTERLAB_WORKSPACES_DIR": str(tmp_path)}
    home |= {"DMC_CACHE": str(tmp_path / "cache"), "PYTHONPATH": str(tmp_path)}
    with open(tmp_path / "log", "w") as log:
        server = subprocess.Popen(
            command, env=os.environ | home, stdout=log, stderr=log, start_new_session=True
        )
    try:
        for _ in range(120):
            with socket.socket() as trial:
                if trial.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert server.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/lab/tree", token
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_the_slider_changes_what_the_explorer_shows(name, lab, tmp_path):
    address, token = lab
    with api.sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            tmp_path / "profile", executable_path=CHROMIUM, args=FLAGS
        )
        page = context.pages[0]
        page.goto(f"{address}/{name}.ipynb?token={token}")
        page.wait_for_selector(".jp-Notebook", timeout=60_000)
        # Cells that are told to run before there is a kernel may be dropped.
        page.get_by_text("Python 3 (ipykernel) | Idle").wait_for(timeout=60_000)
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        picture = page.locator("svg image").last
        picture.wait_for(state="attached", timeout=1000 * RUN_SECONDS)
        picture.scroll_into_view_if_needed()
        shown = picture.get_attribute("href")
        page.locator(".widget-slider .noUi-handle").last.press("ArrowRight")
        deadline = time.time() + 30
        while picture.get_attribute("href") == shown and time.time() < deadline:
            time.sleep(0.2)
        page.screenshot(path=tmp_path / f"{name}.png")
        assert picture.get_attribute("href") != shown
        context.close()
