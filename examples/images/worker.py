"""A worker of the moth pipeline: asks which job has work, fetches tasks, looks at the images, posts what it found.

It speaks /api/v2 with the standard library alone, and as plainly as workers of that API do: no lease is extended, no POST is repeated.
What gets lost comes back to some worker by itself.
"""

import argparse
import json
import time
import urllib.error
import urllib.parse
import urllib.request

import moths


class Server:
    def __init__(self, url: str, token: str | None):
        self.url, self.token = url.rstrip("/") + "/api/v2", token

    def call(self, path: str, body: dict | None = None) -> dict:
        """One call on a connection of its own; with a body it is a POST."""
        headers = {"Accept": "application/json"}
        data = None
        if body is not None:
            headers["Content-Type"] = "application/json"
            data = json.dumps(body).encode()
        if self.token:
            headers["Authorization"] = f"Token {self.token}"
        request = urllib.request.Request(self.url + path, data=data, headers=headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def next_job(self, pipeline: str) -> int | None:
        query = {"pipeline__slug__in": pipeline, "ids_only": 1, "incomplete_only": 1, "dispatch_mode": "async_api"}
        jobs = self.call("/jobs?" + urllib.parse.urlencode(query))["results"]
        return jobs[0]["id"] if jobs else None


def look_at(task: dict, pipeline: str, pause_s: float) -> dict:
    """The result of one task: what is in its image, or why that cannot be told."""
    time.sleep(pause_s)
    image = {"id": task["image_id"], "url": task["image_url"]}
    try:
        path = urllib.request.url2pathname(urllib.parse.urlsplit(task["image_url"]).path)
        detections = moths.detect(path)
    except OSError as why:
        return {"error": str(why), "image_id": task["image_id"]}
    return {"pipeline": pipeline, "source_images": [image], "detections": detections}


def work(server: Server, options: argparse.Namespace) -> None:
    while True:
        try:
            job = server.next_job(options.pipeline)
            tasks = server.call(f"/jobs/{job}/tasks/", {"batch_size": options.batch})["tasks"] if job else []
            if not tasks:
                time.sleep(options.idle)
                continue
            print("holds", len(tasks), flush=True)
            results = [
                {"reply_subject": task["reply_subject"], "result": look_at(task, options.pipeline, options.pause)}
                for task in tasks
            ]
            taken = server.call(f"/jobs/{job}/result/", {"results": results})
            print("posted", *sorted({task["disposition"] for task in taken["tasks"]}), flush=True)
        except (OSError, urllib.error.URLError) as why:
            print("lost", why, flush=True)
            time.sleep(options.idle)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", required=True)
    parser.add_argument("--token")
    parser.add_argument("--pipeline", default="moths")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--pause", type=float, default=0.01, help="seconds that each image takes beside the detector's own time")
    parser.add_argument("--idle", type=float, default=0.2, help="seconds between looks for work")
    options = parser.parse_args()
    work(Server(options.server, options.token), options)


if __name__ == "__main__":
    main()
