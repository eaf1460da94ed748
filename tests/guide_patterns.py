"""The loops an outsider writes around the API, in plain `requests`; the reader sets `sidecar_url` and `headers`."""

import time
from collections.abc import Callable
from typing import Any

import requests

sidecar_url = ""
headers: dict[str, str] = {}


def wait_for_event(event_type: str, timeout: int = 30000, filter: str | None = None) -> Any:
    query: dict[str, Any] = {"timeout": timeout}
    if filter:
        query["filter"] = filter
    answer = requests.get(
        f"{sidecar_url}/events/wait/{event_type}", params=query, headers=headers, timeout=timeout / 1000 + 5
    )
    return answer.json()


def subscribe_continuously(event_type: str, handler: Callable[[Any], object], filter: str | None = None) -> None:
    while True:
        try:
            got = wait_for_event(event_type, timeout=30000, filter=filter)
        except requests.RequestException:
            time.sleep(5)
            continue
        if got.get("timeout"):
            continue
        for event in got.get("events", []):
            handler(event)


def handle_rate_limit(response: requests.Response) -> bool:
    if response.status_code != 429:
        return False
    time.sleep(int(response.headers.get("Retry-After", 30)))
    return True


def api_call_with_rate_limit(url: str, **options: Any) -> requests.Response:
    answer = requests.get(url, **options)
    while handle_rate_limit(answer):
        answer = requests.get(url, **options)
    return answer


def check_sidecar_health() -> bool:
    try:
        return requests.get("http://localhost:3001/health", timeout=5).status_code == 200
    except requests.RequestException:
        return False
