"""The alerts of deploy/ are made of figures that a member shows."""

import re
import urllib.request
from pathlib import Path

import yaml

from tests.support.cluster import quorate_cluster

RULES = Path(__file__).resolve().parent.parent.parent / "deploy" / "prometheus-rules.yml"
MADE_BY_PROMETHEUS = {"up"}
FUNCTIONS = {"increase", "rate", "histogram_quantile"}


def test_every_figure_of_the_alerts_is_shown() -> None:
    rules = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
    assert len({rule["alert"] for rule in rules}) == len(rules)
    without_details = [re.sub(r"\{.*?\}|\[.*?\]", "", rule["expr"]) for rule in rules]
    used = {name for text in without_details for name in re.findall(r"[a-z_]{2,}", text)} - FUNCTIONS
    with quorate_cluster(1, "--auto-tls") as cluster:
        url = f"http://{cluster.nodes[0].endpoint}/metrics"
        page = urllib.request.urlopen(url, timeout=20).read().decode()
    shown = set(re.findall(r"^# TYPE (\w+) ", page, re.MULTILINE))
    assert {name.removesuffix("_bucket") for name in used} - shown <= MADE_BY_PROMETHEUS
