"""docker-compose.yml keeps its promises: pinned, bounded, closed to the outside, healthy before others start."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from compose.stack import FILE, NOT_HERE, services
from flagpost_consumer.demo.pendo_stand_in import Keys
from flagpost_consumer.demo.sample_app import FLAGS
from flagpost_consumer.settings import Needs, Settings, load_settings
from flagpost_publisher.gateway.settings import load_settings as load_gateway_settings
from image.local_images import ROOT
from real_kafka.parts import KAFKA_VERSION

MOUNTED = ROOT / "deploy" / "compose"
SETTINGS = MOUNTED / "flagpost.yaml"
SERVICES = services()
OURS = {name: service for name, service in SERVICES.items() if service["image"].startswith("flagpost:")}
ONE_SHOT = {"topics"}
MEBIBYTES = 3 * 1024 - 1
KEYS = MOUNTED / "stand-in-keys"
KEY_FILES = {
    "FLAGPOST_PENDO__TRACK_SECRET_FILE": str(KEYS / "track-secret"),
    "FLAGPOST_PENDO__INTEGRATION_KEY_FILE": str(KEYS / "integration-key"),
    "FLAGPOST_GATEWAY__WRITE_KEYS_FILE": str(KEYS / "write-keys"),
}
"""The files that the containers see in /run/secrets."""


def test_the_page_has_the_memory_that_its_window_may_take() -> None:
    web = SERVICES["web"]
    window = int(web["environment"]["FLAGPOST_WEB__MAX_BYTES"])
    assert mebibytes(web) * 2**20 >= window + 256 * 2**20


def consumer_settings() -> Settings:
    return load_settings(SETTINGS, KEY_FILES, Needs.KAFKA | Needs.PENDO | Needs.WEBHOOK_TOPIC)


def mebibytes(service: dict[str, Any]) -> int:
    limits = service["deploy"]["resources"]["limits"]
    found = re.fullmatch(r"(\d+)M", limits["memory"])
    assert found, limits
    return int(found[1]) * int(service["deploy"].get("replicas", 1))


def mounts(service: dict[str, Any]) -> list[Path]:
    sources = [volume.split(":")[0] for volume in service.get("volumes", ())]
    return [ROOT / source for source in sources if source.startswith(".")]


def test_images_are_pinned_and_kafka_is_the_one_that_the_tests_use() -> None:
    others = {service["image"] for name, service in SERVICES.items() if name not in OURS}
    assert others
    assert all(re.fullmatch(r"[\w/]+:v?\d+\.\d+\.\d+", image) for image in others), others
    assert SERVICES["kafka"]["image"] == f"apache/kafka:{KAFKA_VERSION}"


def test_memory_is_bounded_for_a_laptop() -> None:
    assert sum(mebibytes(each) for each in SERVICES.values() if "profiles" not in each) <= MEBIBYTES


def test_nothing_is_published_to_other_machines() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports), ports


@pytest.mark.parametrize("name", SERVICES)
def test_long_running_services_have_probes_and_their_dependents_wait(name: str) -> None:
    assert ("healthcheck" in SERVICES[name]) == (name not in ONE_SHOT)
    for needed, how in SERVICES[name].get("depends_on", {}).items():
        expected = "service_completed_successfully" if needed in ONE_SHOT else "service_healthy"
        assert how == {"condition": expected}, needed


@pytest.mark.parametrize("name", OURS)
def test_ours_run_without_privileges_or_a_place_to_write(name: str) -> None:
    service = OURS[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


def test_two_consumers_share_the_work() -> None:
    assert SERVICES["consumer"]["deploy"]["replicas"] == 2


def test_a_consumer_is_given_longer_than_its_drain() -> None:
    grace = SERVICES["consumer"]["stop_grace_period"]
    assert consumer_settings().delivery.drain_seconds < float(grace.removesuffix("s"))


@pytest.mark.parametrize("name", SERVICES)
def test_mounted_paths_exist_and_are_read_only(name: str) -> None:
    assert all(path.exists() for path in mounts(SERVICES[name]))
    volumes = [volume for volume in SERVICES[name].get("volumes", ()) if volume.startswith(".")]
    assert all(volume.endswith(":ro") for volume in volumes), volumes


def test_the_settings_fit_both_programs() -> None:
    assert consumer_settings().pendo.track_url == "http://pendo:8000/data/track"
    assert load_gateway_settings(SETTINGS, KEY_FILES).kafka.bootstrap_servers == "kafka:9092"


def test_the_keys_are_files_that_open_nothing_but_the_stand_in() -> None:
    named = set(re.findall(r"_file: /run/secrets/(\S+)", SETTINGS.read_text()))
    files = {name: ROOT / one["file"] for name, one in yaml.safe_load(FILE.read_text())["secrets"].items()}
    assert files.keys() == named
    assert {name: file.read_text().strip() for name, file in files.items()} == {
        "track-secret": Keys().track_secret,
        "integration-key": Keys().integration_key,
        "write-keys": "try-flagpost",
    }


def test_the_shops_flags_are_fields_of_the_stand_in_and_labels() -> None:
    fields = [part for part in SERVICES["pendo"]["command"] if part.startswith("--visitor-field=")]
    assert fields == [f"--visitor-field=optimizely_{flag}=[Optimizely] {flag}" for flag in FLAGS]
    assert tuple(consumer_settings().metrics.flags) == FLAGS


def scraped(job: dict[str, Any]) -> set[str]:
    static = {target for config in job.get("static_configs", ()) for target in config["targets"]}
    looked_up = {
        f"{name}:{config['port']}" for config in job.get("dns_sd_configs", ()) for name in config["names"]
    }
    return static | looked_up


def test_prometheus_scrapes_what_is_probed() -> None:
    jobs = yaml.safe_load((MOUNTED / "prometheus.yml").read_text())["scrape_configs"]
    names = {job["job_name"] for job in jobs}
    assert names == {"consumer", "gateway", "shop"}
    for job in jobs:
        probe = SERVICES[job["job_name"]]["healthcheck"]["test"][-1]
        port = re.search(r"127\.0\.0\.1:(\d+)/", probe)
        assert port
        assert scraped(job) == {f"{job['job_name']}:{port[1]}"}


def test_grafana_opens_with_the_charts_overview() -> None:
    grafana = SERVICES[NOT_HERE]
    home = Path(grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    provider = yaml.safe_load((MOUNTED / "grafana" / "dashboards" / "flagpost.yaml").read_text())[
        "providers"
    ][0]
    assert provider["options"]["path"] == str(home.parent)
    assert f"./helm/flagpost/dashboards:{home.parent}:ro" in grafana["volumes"]
    assert (ROOT / "helm" / "flagpost" / "dashboards" / home.name).is_file()
