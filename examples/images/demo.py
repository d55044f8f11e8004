"""Draws images, starts a node and workers, submits a job, and checks its tally against what was drawn."""

import argparse
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

import moths
from worker import Server

HERE = Path(__file__).parent
PIPELINE = "moths"
PATIENCE_S = 300
# With --chaos: short, so that what a dead worker held comes back soon. Calls of its siblings renew it, to twice this at most.
LEASE_S = 2
FINAL = ("SUCCESS", "FAILURE", "REVOKED")


class Process:
    """A child, and what it says line by line."""

    def __init__(self, *command: str, cwd: Path):
        quiet = {"TALLYKEEPER_LOG": "warn", **os.environ}
        self.child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=cwd, env=quiet)
        self.lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self.child.stdout:
            self.lines.put(line.strip())

    def says(self, start: str) -> str:
        """Waits for a line that begins so."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            line = self.lines.get(timeout=max(0.0, deadline - time.monotonic()))
            if line.startswith(start):
                return line

    def forget(self) -> None:
        """What was said up to now is of no interest."""
        while not self.lines.empty():
            self.lines.get()

    def send(self, sent: signal.Signals) -> None:
        self.child.send_signal(sent)


def start_worker(url: str, cwd: Path) -> Process:
    return Process(sys.executable, str(HERE / "worker.py"), "--server", url, "--pipeline", PIPELINE, cwd=cwd)


def submit(server: Server, images: list[Path], chaos: bool) -> int:
    tasks = [{"image_id": path.stem, "image_url": path.as_uri()} for path in images]
    job = {"name": f"{len(tasks)} images", "pipeline_slug": PIPELINE, "tasks": tasks, "start_now": True}
    if chaos:
        job["policy"] = {"lease_timeout_s": LEASE_S, "max_attempts": 10, "backoff": {"initial_s": 0.1}}
    return server.call("/jobs/", job)["id"]


def disturb(workers: list[Process]) -> None:
    """Kills one worker in the middle of a batch, and puts another to sleep until its leases are long over."""
    killed, paused = workers[:2]
    killed.forget()
    killed.says("holds")
    killed.send(signal.SIGKILL)
    print("killed a worker (-9) in the middle of a batch")
    paused.forget()
    paused.says("holds")
    paused.send(signal.SIGSTOP)
    print("paused another one in the middle of a batch, until past the end of its leases")
    time.sleep(2 * LEASE_S + 1)
    paused.forget()
    paused.send(signal.SIGCONT)
    print("woke it up: it", paused.says("posted"))


def watch(server: Server, job: int) -> dict:
    """Shows the progress until the job is over."""
    shown, deadline = -1, time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        detail = server.call(f"/jobs/{job}/?logs_limit=1")
        share = int(100 * detail["progress"]["summary"]["progress"])
        if share // 10 != shown // 10:
            print(f"{detail['status']:8} {share:3} %")
            shown = share
        if detail["status"] in FINAL:
            return detail
        time.sleep(0.1)
    raise SystemExit("the job did not end in time")


def results(url: str, job: int) -> list[dict]:
    request = urllib.request.Request(f"{url}/v1/jobs/{job}/results", headers={"Accept": "application/x-ndjson"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return [json.loads(line) for line in answer]


def check(url: str, job: int, drawn: dict[str, dict[str, int]]) -> bool:
    """Compares everything that was kept and counted with what was drawn."""
    rows = results(url, job)
    found = {row["key"]: dict.fromkeys(moths.SPECIES, 0) for row in rows}
    for row in rows:
        for detection in row["result"]["detections"]:
            found[row["key"]][detection["classifications"][0]["classification"]] += 1
    with urllib.request.urlopen(f"{url}/v1/jobs/{job}", timeout=30) as answer:
        counters = json.load(answer)["progress"]["counters"]
    total = sum(sum(tally.values()) for tally in drawn.values())
    expected = {"captures": len(drawn), "detections": total, "classifications": total}
    exact = len(rows) == len(drawn) and found == drawn and counters == expected
    species = ", ".join(f"{sum(tally[name] for tally in found.values())} {name}" for name in moths.SPECIES)
    again = sum(row["attempt"] > 1 for row in rows)
    print(f"{len(rows)} of {len(drawn)} images, {total} moths ({species}); {again} images were handed out again")
    print(f"counted {counters}: {'exact' if exact else f'WRONG, expected {expected}'}")
    return exact


def run(options: argparse.Namespace, home: Path) -> bool:
    (home / "images").mkdir()
    images = [home / "images" / f"{number:05}.png" for number in range(options.images)]
    drawn = {path.stem: moths.draw(path, seed) for seed, path in enumerate(images)}
    node = Process(options.program, "serve", "--listen", "127.0.0.1:0", "--store", f"sqlite:{home}/tally.db", cwd=home)
    workers = []
    try:
        url = node.says("listening on ").removeprefix("listening on ")
        server = Server(url, None)
        job = submit(server, images, options.chaos)
        print(f"job {job} of {len(images)} images; the page is at {url}/#/jobs/{job}")
        workers = [start_worker(url, home) for _ in range(options.workers)]
        if options.chaos:
            disturb(workers)
        detail = watch(server, job)
        exact = check(url, job, drawn)
        if options.keep:
            print("the node goes on until Ctrl-C")
            signal.pause()
        return exact and detail["status"] == "SUCCESS"
    except KeyboardInterrupt:
        return False
    finally:
        for process in workers:
            process.child.kill()
        node.child.terminate()
        node.child.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--program", required=True, help="path of tallykeeper")
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--chaos", action="store_true", help="kill one worker, pause another past the end of its leases")
    parser.add_argument("--keep", action="store_true", help="leave the node running at the end, to look around")
    options = parser.parse_args()
    if options.images < 1 or options.workers < (3 if options.chaos else 1):
        parser.error("at least one image and one worker, and three workers with --chaos")
    with tempfile.TemporaryDirectory(prefix="tallykeeper-images-") as home:
        raise SystemExit(0 if run(options, Path(home)) else 1)


if __name__ == "__main__":
    main()
