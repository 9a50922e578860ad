"""A program that fills a folder of the cache and does not end: `python -c FILL_PROGRAM FOLDER`."""

FILL_PROGRAM = """
import sys, time
from pathlib import Path
from thaw.system.cache_folder import build_folder_once

def fill(folder):
    (folder / "first").write_text("half of it")
    print("filling", flush=True)
    time.sleep(60)

build_folder_once(Path(sys.argv[1]), fill)
"""
