"""The examples in deploy/: true to their formats' schemas, to the gateway's command line and
settings, and to each other."""

import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from configparser import RawConfigParser
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import typer
import yaml

from gateway import config
from gateway.app.gateway import GRACE
from gateway.cli import app, playing, serving
from gateway.web import probes

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
README = (DEPLOY / "README.md").read_text(encoding="utf-8")
COMPOSE = DEPLOY / "compose/compose.yaml"
CONTAINERFILE = (DEPLOY / "Containerfile").read_text(encoding="utf-8").replace("\\\n", " ")
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
OBJECTS = [
    one
    for path in sorted((DEPLOY / "kubernetes").glob("*.yaml"))
    if path.name != "kustomization.yaml"
    for one in yaml.safe_load_all(path.read_text(encoding="utf-8"))
]
TOMLS = sorted(DEPLOY.glob("*/gateway.toml"))
HARDENED = {
    "NoNewPrivileges": "yes",
    "CapabilityBoundingSet": "",
    "ProtectSystem": "strict",
    "ProtectHome": "yes",
    "PrivateTmp": "yes",
    "PrivateDevices": "yes",
    "MemoryDenyWriteExecute": "yes",
    "RestrictNamespaces": "yes",
    "SystemCallArchitectures": "native",
    "UMask": "0077",
}
READ_BY_OTHERS = {"GATEWAY_CONFIG"}  # of our variables: by the command line
EXPOSURE = 15  # tenths; what `systemd-analyze security` may find


def services() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["services"]
    return found


def kind(name: str) -> list[dict[str, Any]]:
    return [one for one in OBJECTS if one["kind"] == name]


def named(one: dict[str, Any]) -> str:
    return f"{one['kind']}/{one['metadata']['name']}"


def pods() -> Iterator[tuple[str, dict[str, Any]]]:
    for one in [*kind("Deployment"), *kind("Job")]:
        yield named(one), one["spec"]["template"]


def unit(path: Path) -> RawConfigParser:
    """A unit; of keys that are given twice the last."""
    parser = RawConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(path, encoding="utf-8")
    return parser


def commands() -> Iterator[tuple[str, list[str]]]:
    """What is given to the gateway's command line, and where."""
    for name, one in services().items():
        if str(one.get("image", "")).startswith("otp-gateway"):
            yield f"compose {name}", one["command"]
    for path in UNITS:
        started = shlex.split(unit(path)["Service"]["ExecStart"].replace("%i", "8090"))
        yield path.name, started[started.index("gateway") + 1 :]
    for name, pod in pods():
        yield name, pod["spec"]["containers"][0]["args"]
    run = re.findall(r"^(?:ENTRYPOINT|CMD) (.*)$", CONTAINERFILE, re.MULTILINE)
    entry, usual = map(json.loads, run)
    yield "Containerfile", (entry + usual)[3:]


def option(arguments: list[str], name: str) -> str | None:
    return arguments[arguments.index(name) + 1] if name in arguments else None


COMMANDS = list(commands())


@pytest.mark.parametrize(("where", "arguments"), COMMANDS, ids=[where for where, _ in COMMANDS])
def test_every_command_is_one_of_the_gateway(where: str, arguments: list[str]) -> None:
    group = typer.main.get_command(app)
    name, *rest = arguments
    command = group.commands[name]  # type: ignore[attr-defined]

    with command.make_context(name, rest) as context:
        assert option(arguments, "--role") in {None, "api", "worker"}
        assert context.params.get("workers", 1) >= 1


@pytest.mark.parametrize("path", TOMLS, ids=lambda path: path.parent.name)
def test_every_settings_file_loads(path: Path) -> None:
    wanted = re.findall(r'env = "(\w+)"', path.read_text(encoding="utf-8"))

    settings = config.load({name: f"example-of-a-secret-{name}" for name in wanted}, path)

    assert settings.store is settings.server
    assert settings.sandbox_port is None


def test_the_secrets_that_settings_name_are_given() -> None:
    """By compose to each of its processes, elsewhere by a list that people fill."""
    for path in TOMLS:
        wanted = set(re.findall(r'env = "(\w+)"', path.read_text(encoding="utf-8")))
        if path.parent.name == "compose":
            for name in ("migrate", "api", "worker"):
                assert wanted <= set(services()[name]["environment"])
        else:
            assert [] == [name for name in wanted if f"`{name}`" not in README]


def test_our_variables_exist() -> None:
    known = {f"GATEWAY_{name}" for name in config.VARIABLES} | READ_BY_OTHERS
    files = [path for path in DEPLOY.rglob("*") if path.is_file()]

    found = {
        name for path in files for name in re.findall(r"GATEWAY_[A-Z_]+", path.read_text("utf-8"))
    }

    assert set() == found - known


# Containerfile


def test_the_image_has_what_it_copies_and_no_rights() -> None:
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", CONTAINERFILE, re.MULTILINE)
    let_in = (DEPLOY / "Containerfile.dockerignore").read_text("utf-8").split()

    assert copied
    for source in copied:
        assert (ROOT / source).exists()
        assert f"!{source}" in let_in
    assert "--require-hashes" in CONTAINERFILE
    assert re.search(r"^USER [1-9]\d+:[1-9]\d+$", CONTAINERFILE, re.MULTILINE)


# Compose


def test_the_compose_file_is_one() -> None:
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec",
         str(COMPOSE)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert 0 == done.returncode, done.stdout + done.stderr


def test_compose_names_what_is_there() -> None:
    whole = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))
    example = (COMPOSE.parent / "env.example").read_text(encoding="utf-8")
    filled = set(re.findall(r"\$\{(\w+)", COMPOSE.read_text(encoding="utf-8")))

    assert set(re.findall(r"^(\w+)=", example, re.MULTILINE)) == filled
    for one in whole["services"].values():
        assert set(one.get("depends_on", {})) <= set(whole["services"])
        for mount in one.get("volumes", ()):
            source = mount.partition(":")[0]
            assert source in whole["volumes"] or (COMPOSE.parent / source).exists()
        if "build" in one:
            assert (COMPOSE.parent / one["build"]["context"] / one["build"]["dockerfile"]).exists()


def test_composes_gateway_and_sandbox_know_each_other() -> None:
    api = services()["api"]
    table = tomllib.loads((COMPOSE.parent / "gateway.toml").read_text(encoding="utf-8"))
    sandbox = option(services()["sandbox"]["command"], "--port")

    assert playing.OPEN.items() <= api["environment"].items()
    assert str(serving.PORT) == option(api["command"], "--port")
    assert {sandbox} == {
        route["base_url"].split("/")[2].rpartition(":")[2] for route in table["routes"].values()
    }


def test_prometheus_scrapes_where_compose_serves() -> None:
    scraping = yaml.safe_load((COMPOSE.parent / "prometheus.yml").read_text(encoding="utf-8"))
    (job,) = scraping["scrape_configs"]
    asked = {one["targets"][0].rpartition(":")[2] for one in job["static_configs"]}
    mounted = {mount.split(":")[1] for mount in services()["prometheus"]["volumes"]}

    assert asked == {option(services()[name]["command"], "--port") for name in ("api", "worker")}
    assert set(scraping["rule_files"]) <= mounted
    assert f'job="{job["job_name"]}"' in (DEPLOY / "prometheus/rules.yml").read_text("utf-8")


# systemd


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_a_unit_is_hardened_and_gives_time_to_end(path: Path) -> None:
    service = unit(path)["Service"]

    assert HARDENED.items() <= dict(service).items()
    assert "DynamicUser" in service or "User" in service
    if "serve" in service["ExecStart"]:
        assert int(service["TimeoutStopSec"]) > GRACE


def test_systemd_takes_the_units(tmp_path: Path) -> None:
    """With another program in place of ours, since it looks whether that is there."""
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not installed")
    for path in UNITS:
        text = path.read_text(encoding="utf-8")
        started = f"ExecStart={sys.executable} "
        (tmp_path / path.name).write_text(re.sub(r"ExecStart=\S+ ", started, text))
    copies = [str(tmp_path / path.name.replace("@.", "@8090.")) for path in UNITS]
    (tmp_path / "otp-gateway-worker@8090.service").symlink_to(
        tmp_path / "otp-gateway-worker@.service"
    )

    done = subprocess.run(  # noqa: S603
        [analyze, "verify", "--man=no", *copies], capture_output=True, text=True, check=False
    )
    graded = subprocess.run(  # noqa: S603
        [analyze, "security", "--offline=yes", f"--threshold={EXPOSURE}", *copies],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert (0, "") == (done.returncode, done.stdout + done.stderr)
    assert 0 == graded.returncode, graded.stdout


# Kubernetes


@pytest.mark.parametrize("one", OBJECTS, ids=named)
def test_an_object_is_what_kubernetes_takes(one: dict[str, Any]) -> None:
    kubernetes_validate.validate(one, kubernetes_validate.latest_version(), strict=True)


def test_kustomize_takes_every_file() -> None:
    folder = DEPLOY / "kubernetes"
    table = yaml.safe_load((folder / "kustomization.yaml").read_text(encoding="utf-8"))
    there = {path.name for path in folder.iterdir()} - {"kustomization.yaml"}

    assert there == {*table["resources"], *table["configMapGenerator"][0]["files"]}
    assert table["namespace"] in {one["metadata"]["name"] for one in kind("Namespace")}


def test_objects_find_each_other() -> None:
    generated = yaml.safe_load(
        (DEPLOY / "kubernetes/kustomization.yaml").read_text(encoding="utf-8")
    )["configMapGenerator"]
    labels = [pod["metadata"]["labels"] for _, pod in pods()]
    accounts = {one["metadata"]["name"] for one in kind("ServiceAccount")}

    for one in [*kind("Deployment"), *kind("PodDisruptionBudget")]:
        assert one["spec"]["selector"]["matchLabels"] in labels
    for one in kind("Service"):
        (pod,) = (pod for _, pod in pods() if pod["metadata"]["labels"] == one["spec"]["selector"])
        (port,) = pod["spec"]["containers"][0]["ports"]
        assert [port["name"]] == [wanted["targetPort"] for wanted in one["spec"]["ports"]]
    for one in kind("HorizontalPodAutoscaler"):
        wanted = one["spec"]["scaleTargetRef"]
        assert f"{wanted['kind']}/{wanted['name']}" in map(named, OBJECTS)
    for _, pod in pods():
        assert pod["spec"]["serviceAccountName"] in accounts
        volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
        (container,) = pod["spec"]["containers"]
        assert set(volumes) == {mount["name"] for mount in container["volumeMounts"]}
        assert [volumes["settings"]["configMap"]["name"]] == [made["name"] for made in generated]
        secrets = [volumes["keyring"]["secret"]["secretName"]]
        secrets += [source["secretRef"]["name"] for source in container["envFrom"]]
        assert [] == [name for name in secrets if f"secret generic {name} " not in README]


def test_pods_are_probed_where_they_listen_and_have_time_to_end() -> None:
    paths = {route.path for route in probes.Probes(lambda: None).routes()}  # type: ignore[arg-type,return-value]

    for one in kind("Deployment"):
        pod = one["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        port = container["ports"][0]
        waits = int(container["lifecycle"]["preStop"]["exec"]["command"][-1])

        assert str(port["containerPort"]) == option(container["args"], "--port")
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            assert container[probe]["httpGet"]["path"] in paths
            assert container[probe]["httpGet"]["port"] == port["name"]
        assert pod["terminationGracePeriodSeconds"] > GRACE + waits


def test_pods_have_no_rights() -> None:
    for _, pod in pods():
        (container,) = pod["spec"]["containers"]
        about = container["securityContext"]

        assert pod["spec"]["securityContext"]["runAsNonRoot"]
        assert about["readOnlyRootFilesystem"]
        assert not about["allowPrivilegeEscalation"]
        assert ["ALL"] == about["capabilities"]["drop"]
        assert "memory" in container["resources"]["limits"]
