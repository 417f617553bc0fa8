"""What `armature deploy` writes: well-formed, fitting together, and free of whatever an option might smuggle in."""

from __future__ import annotations

import configparser
import json
import os
import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from armature.cli.deploy import MANIFESTS, SHUTDOWN_SPARE
from armature.cli.deploy import deploy as group
from armature.cli.main import armature
from armature.cli.serve import run
from counterparts import find, require

Invoke = Callable[..., Result]
TARGETS = sorted(group.commands)
#: What each makes, where it makes it, for a project called shop.
MADE = {
    "compose": ["compose.yaml"],
    "docker": [".dockerignore", "Dockerfile"],
    "helm": [
        "deploy/helm/Chart.yaml",
        *sorted(f"deploy/helm/templates/{name}.yaml" for name in MANIFESTS),
        "deploy/helm/values.yaml",
    ],
    "jenkins": ["Jenkinsfile"],
    "kubernetes": sorted(f"deploy/kubernetes/{name}.yaml" for name in MANIFESTS),
    "systemd": ["deploy/systemd/shop.service", "deploy/systemd/shop.socket"],
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory to work in, called shop."""
    path = tmp_path / "shop"
    path.mkdir()
    monkeypatch.chdir(path)
    monkeypatch.delenv("ARMATURE_APP", raising=False)
    return path


@pytest.fixture
def deploy(project: Path) -> Invoke:
    """Run a subcommand for the app `shop:app`, unless told otherwise."""

    def invoke(target: str, *arguments: str) -> Result:
        app = [] if "--app" in arguments else ["--app", "shop:app"]
        return CliRunner().invoke(armature, ["deploy", target, *app, *arguments], prog_name="armature")

    return invoke


def made(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): path.read_text("utf-8")
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def unit(text: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, strict=True)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string(text)
    return parser


def served_with(words: list[str]) -> dict[str, Any]:
    """Read the words behind `armature run` as the command itself does, refusing what it would refuse."""
    return run.make_context("run", list(words)).params


def dockerfile(text: str) -> list[tuple[str, str]]:
    """The instructions of a Dockerfile, as names and the rest of their lines."""
    lines = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", "").splitlines()
    return [(line.split(" ", 1)[0], line.split(" ", 1)[1].strip()) for line in lines if line.strip()]


@pytest.mark.parametrize("target", TARGETS)
def test_the_files(deploy: Invoke, project: Path, target: str) -> None:
    result = deploy(target)
    assert result.exit_code == 0, result.output
    files = made(project)
    assert sorted(files) == MADE[target]
    assert all(f"wrote {path}" in result.output for path in files)
    for name, text in files.items():
        assert text.endswith("\n"), name
        assert all(line == line.rstrip() and len(line) <= 200 for line in text.splitlines()), name


@pytest.mark.parametrize("target", TARGETS)
def test_nothing_is_overwritten(deploy: Invoke, project: Path, target: str) -> None:
    assert deploy(target).exit_code == 0
    # What is the same may be written again.
    assert deploy(target).exit_code == 0
    first, *others = (project / path for path in MADE[target])
    for path in others:
        path.unlink()
    first.write_text("mine")
    result = deploy(target)
    assert result.exit_code == 2
    assert f"{MADE[target][0]} exists" in result.output
    assert "--force" in result.output
    assert made(project) == {MADE[target][0]: "mine"}
    assert deploy(target, "--force").exit_code == 0
    assert first.read_text() != "mine"


@pytest.mark.parametrize("target", TARGETS)
def test_another_directory(deploy: Invoke, project: Path, target: str) -> None:
    assert deploy(target, "--output", "else/where").exit_code == 0
    assert all(path.startswith("else/where/") for path in made(project))


def test_a_directory_that_cannot_be_made(deploy: Invoke, project: Path) -> None:
    (project / "file").write_text("")
    result = deploy("compose", "--output", "file/below")
    assert result.exit_code == 2
    assert "file/below/compose.yaml cannot be written" in result.output


ODD = [
    "",
    " ",
    "-",
    "--help",
    "a b",
    "a\nb",
    "a;reboot",
    "a$(reboot)",
    "a`reboot`",
    "${HOME}",
    "%n",
    "a'b",
    'a"b',
    "a\\b",
    "a{{ .Values }}",
    "a: b",
    "a #b",
    "[a]",
    "a*",
    "a\x00b",
    "ä",
    "a\u2028b",
    "../a",
    "a" * 400,
]


@pytest.mark.parametrize("value", ODD)
@pytest.mark.parametrize(
    ("target", "option"),
    [
        ("systemd", "--app"),
        ("systemd", "--name"),
        ("systemd", "--directory"),
        ("systemd", "--uds"),
        ("systemd", "--user"),
        ("systemd", "--host"),
        ("systemd", "--workers"),
        ("docker", "--health-path"),
        ("docker", "--python"),
        ("docker", "--trusted-proxy"),
        ("helm", "--image"),
    ],
)
def test_odd_values_are_refused(deploy: Invoke, project: Path, target: str, option: str, value: str) -> None:
    result = deploy(target, f"{option}={value}", *(["--app", value] if option == "--app" else []))
    assert result.exit_code == 2, result.output
    assert "Error: " in result.output
    assert made(project) == {}


@pytest.mark.parametrize("name", ["1shop", "Shop", "shop_front", "shop-", "-shop", "shop.front", "a" * 54])
def test_names_that_kubernetes_would_refuse(deploy: Invoke, name: str) -> None:
    result = deploy("kubernetes", f"--name={name}")
    assert result.exit_code == 2
    assert f"{name!r} is not a name of small letters, digits and dashes" in result.output


@pytest.mark.parametrize(
    "app", ["shop", "shop:app", "shop.web:make.app", "shop.py", "src/shop.py:app", "my-dir/a.b/shop.py"]
)
def test_apps_as_run_takes_them(deploy: Invoke, project: Path, app: str) -> None:
    assert deploy("compose", "--app", app).exit_code == 0
    command = yaml.safe_load((project / "compose.yaml").read_text())["services"]["shop"]["command"]
    assert command[:3] == ["armature", "run", app]


@pytest.mark.parametrize(
    "image", ["Shop", "shop:", "shop:a b", "shop/", "/shop", "http://x/shop", "shop@sha256:00", "shop:-x"]
)
def test_images_that_are_none(deploy: Invoke, image: str) -> None:
    assert f"{image!r} is no image" in deploy("compose", f"--image={image}").output


@pytest.mark.parametrize(
    ("image", "repository", "tag"),
    [
        ("shop", "shop", "latest"),
        ("shop:1.4", "shop", "1.4"),
        ("localhost:5000/shop", "localhost:5000/shop", "latest"),
        ("registry.example.org/team/shop:v1", "registry.example.org/team/shop", "v1"),
    ],
)
def test_images(deploy: Invoke, project: Path, image: str, repository: str, tag: str) -> None:
    assert deploy("helm", f"--image={image}").exit_code == 0
    values = yaml.safe_load((project / "deploy/helm/values.yaml").read_text())
    assert values["image"] == {"repository": repository, "tag": tag}


def test_what_is_left_out_is_found_here(deploy: Invoke, project: Path) -> None:
    (project / "main.py").write_text("")
    result = CliRunner().invoke(armature, ["deploy", "compose"])
    assert result.exit_code == 0, result.output
    compose = yaml.safe_load((project / "compose.yaml").read_text())
    assert (compose["name"], compose["services"]["shop"]["command"][2]) == ("shop", "main.py")


def test_without_an_app_there_is_nothing_to_deploy(project: Path) -> None:
    result = CliRunner().invoke(armature, ["deploy", "compose"])
    assert result.exit_code == 2
    assert "no app is named" in result.output


def test_a_directory_whose_name_does_not_do(deploy: Invoke, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "My Shop!").mkdir()
    monkeypatch.chdir(project / "My Shop!")
    result = deploy("compose")
    assert result.exit_code == 2
    assert "mend: give --name" in result.output


# systemd.


def test_the_service(deploy: Invoke, project: Path) -> None:
    assert deploy("systemd", "--shutdown-timeout", "20", "--trusted-proxy", "unix", "--factory").exit_code == 0
    service = unit((project / "deploy/systemd/shop.service").read_text())
    program, command, *words = shlex.split(service["Service"]["ExecStart"])
    assert (program, command) == ("/srv/shop/.venv/bin/armature", "run")
    params = served_with(words)
    assert (params["target"], params["factory"], params["trusted_proxies"]) == ("shop:app", True, ("unix",))
    assert (params["workers"], params["shutdown_timeout"]) == ("auto", 20)
    # The sockets are systemd's: an address would be taken instead.
    assert not {"--host", "--port", "--uds", "--fd"} & {word.partition("=")[0] for word in words}
    assert service["Service"]["Type"] == "notify"
    assert service["Service"]["ExecReload"] == "/bin/kill -HUP $MAINPID"
    assert int(service["Service"]["TimeoutStopSec"]) == 20 + SHUTDOWN_SPARE
    assert service["Unit"]["Requires"] == "shop.socket"


def test_one_process_is_not_sent_what_would_end_it(deploy: Invoke, project: Path) -> None:
    assert deploy("systemd", "--workers", "1").exit_code == 0
    service = (project / "deploy/systemd/shop.service").read_text()
    assert "ExecReload" not in service
    assert "The event loop gives signs of life" in service


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], {"ListenStream": "127.0.0.1:8000"}),
        (["--host", "::", "--port", "80"], {"ListenStream": "[::]:80"}),
        (["--uds", "/run/shop.sock"], {"ListenStream": "/run/shop.sock", "SocketMode": "0666"}),
        (
            ["--uds", "/run/shop.sock", "--group", "www-data"],
            {"ListenStream": "/run/shop.sock", "SocketMode": "0660", "SocketGroup": "www-data"},
        ),
    ],
)
def test_the_socket(deploy: Invoke, project: Path, arguments: list[str], expected: dict[str, str]) -> None:
    assert deploy("systemd", *arguments).exit_code == 0
    section = dict(unit((project / "deploy/systemd/shop.socket").read_text())["Socket"])
    assert section == {**expected, "Backlog": "2048"}


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--group", "www-data"], "--group needs --uds"),
        (["--uds", "/run/a", "--port", "80"], "--uds and --port exclude each other"),
    ],
)
def test_options_that_contradict_each_other(deploy: Invoke, arguments: list[str], complaint: str) -> None:
    result = deploy("systemd", *arguments)
    assert result.exit_code == 2
    assert complaint in result.output


@pytest.mark.parametrize(
    ("arguments", "user", "home"),
    [
        ([], "DynamicUser=yes", "yes"),
        (["--user", "shop", "--directory", Path("/home", "shop").as_posix()], "User=shop", "read-only"),
    ],
)
def test_who_the_service_is(deploy: Invoke, project: Path, arguments: list[str], user: str, home: str) -> None:
    assert deploy("systemd", *arguments).exit_code == 0
    service = (project / "deploy/systemd/shop.service").read_text()
    assert f"\n{user}\n" in service
    assert f"\nProtectHome={home}\n" in service


def test_systemd_finds_nothing_to_complain_about(deploy: Invoke, project: Path) -> None:
    verifier = find("systemd-analyze")
    if verifier is None:
        pytest.skip("systemd-analyze is not installed")
    # It looks for the program as well.
    program = project / ".venv/bin/armature"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    assert deploy("systemd", f"--directory={project}").exit_code == 0
    units = [project / path for path in MADE["systemd"]]
    result = subprocess.run(
        [verifier, "verify", "--man=no", *map(str, units)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "SYSTEMD_LOG_LEVEL": "warning"},
    )
    # It tells of whatever else it finds wrong on the machine.
    about = [line for line in result.stderr.splitlines() if "shop" in line]
    assert about == []


# Containers.


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ([], "pip install armature-framework"),
        (["requirements.txt"], "pip install -r requirements.txt"),
        (["requirements.txt", "pyproject.toml"], "pip install ."),
    ],
)
def test_the_image(deploy: Invoke, project: Path, files: list[str], expected: str) -> None:
    for name in files:
        (project / name).write_text("")
    assert deploy("docker", "--port", "8080", "--shutdown-delay", "5", "--python", "3.12").exit_code == 0
    steps = dockerfile((project / "Dockerfile").read_text())
    known = {"FROM", "ENV", "RUN", "WORKDIR", "COPY", "USER", "EXPOSE", "HEALTHCHECK", "CMD"}
    assert {name for name, _ in steps} == known
    assert [rest for name, rest in steps if name == "FROM"] == ["python:3.12-slim AS build", "python:3.12-slim"]
    assert expected in [rest for name, rest in steps if name == "RUN"]
    last = dict(steps[[name for name, _ in steps].index("USER") :])
    user, group = last["USER"].split(":")
    assert int(user) and int(group)
    # The exec form: a shell would keep SIGTERM to itself.
    program, command, *words = json.loads(last["CMD"])
    assert (program, command) == ("armature", "run")
    params = served_with(words)
    assert (params["host"], params["port"], params["shutdown_delay"]) == ("0.0.0.0", 8080, 5)
    health = json.loads(last["HEALTHCHECK"].partition("CMD ")[2])
    assert health[:2] == ["python", "-c"]
    compile(health[2], "HEALTHCHECK", "exec")
    for name, rest in steps:
        if name == "RUN":
            subprocess.run([require("sh"), "-n"], input=rest, text=True, check=True, timeout=30)


def test_compose(deploy: Invoke, project: Path) -> None:
    options = ["--image", "registry.example.org/shop:2", "--shutdown-delay", "5", "--shutdown-timeout", "10"]
    assert deploy("compose", *options).exit_code == 0
    service = yaml.safe_load((project / "compose.yaml").read_text())["services"]["shop"]
    assert (service["build"], service["image"]) == (".", "registry.example.org/shop:2")
    assert service["stop_grace_period"] == f"{5 + 10 + SHUTDOWN_SPARE}s"
    assert service["ports"] == ["127.0.0.1:8000:8000"]
    params = served_with(service["command"][2:])
    assert (params["shutdown_delay"], params["shutdown_timeout"]) == (5, 10)


def manifests(folder: Path) -> dict[str, Any]:
    documents = [yaml.safe_load(path.read_text("utf-8")) for path in sorted(folder.glob("*.yaml"))]
    return {document["kind"]: document for document in documents}


@pytest.mark.parametrize("name", ["shop", "null", "yes", "e1", "a" * 53])
def test_the_manifests(deploy: Invoke, project: Path, name: str) -> None:
    arguments = [
        "--shutdown-delay",
        "7",
        "--shutdown-timeout",
        "20",
        "--health-path",
        "/internal/health",
        "--port",
        "80",
    ]
    assert deploy("kubernetes", f"--name={name}", *arguments).exit_code == 0
    found = manifests(project / "deploy/kubernetes")
    assert set(found) == {"Deployment", "Service", "HorizontalPodAutoscaler", "PodDisruptionBudget"}
    labels = {"app.kubernetes.io/name": name}
    assert {document["metadata"]["name"] for document in found.values()} == {name}
    assert found["Service"]["spec"]["selector"] == labels
    assert found["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    assert found["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]["name"] == name
    spec = found["Deployment"]["spec"]
    assert spec["selector"]["matchLabels"] == spec["template"]["metadata"]["labels"] == labels
    pod = spec["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] == 7 + 20 + SHUTDOWN_SPARE
    assert pod["securityContext"]["runAsNonRoot"] is True
    (container,) = pod["containers"]
    params = served_with(container["command"][2:])
    assert (params["shutdown_delay"], params["shutdown_timeout"]) == (7, 20)
    assert params["port"] == container["ports"][0]["containerPort"] == 80
    assert found["Service"]["spec"]["ports"][0]["targetPort"] == container["ports"][0]["name"]
    paths = {kind: container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "liveness", "readiness")}
    live = "/internal/health/live"
    assert paths == {"startup": live, "liveness": live, "readiness": "/internal/health/ready"}


def test_readiness_fails_before_connections_are_refused(deploy: Invoke, project: Path) -> None:
    assert deploy("kubernetes").exit_code == 0
    pod = manifests(project / "deploy/kubernetes")["Deployment"]["spec"]["template"]["spec"]
    probe = pod["containers"][0]["readinessProbe"]
    assert (
        probe["periodSeconds"] * probe["failureThreshold"]
        < served_with(pod["containers"][0]["command"][2:])["shutdown_delay"]
    )


RANGE = re.compile(r"\n *\{\{- range \.Values\.(\w+) \}\}(.*?)\n *\{\{- end \}\}", re.DOTALL)


def chart(folder: Path, release: str) -> dict[str, Any]:
    """Do what `helm template` does, as far as the chart asks for it."""
    values = yaml.safe_load((folder / "values.yaml").read_text())

    def value(path: str) -> Any:
        found = values
        for part in path.removeprefix(".Values.").split("."):
            found = found[part]
        return found

    def expression(match: re.Match[str]) -> str:
        function, *rest = match[1].split()
        if function == ".Release.Name":
            return release
        if function == "add":
            return str(sum(int(word) if word.isdigit() else value(word) for word in rest))
        return json.dumps(value(rest[0])) if function == "toJson" else str(value(function))

    def repeat(match: re.Match[str]) -> str:
        return "".join(match[2].replace("{{ . | quote }}", json.dumps(item)) for item in values[match[1]])

    found = {}
    for path in sorted((folder / "templates").glob("*.yaml")):
        text = re.sub(r"\{\{ (.*?) \}\}", expression, RANGE.sub(repeat, path.read_text("utf-8")))
        document = yaml.safe_load(text)
        found[document["kind"]] = document
    return found


ARGUMENTS = ["--trusted-proxy=10.0.0.0/8", "--trusted-proxy=*", "--workers=2", "--port=8080", "--image=a/shop:3"]


def test_the_chart_makes_the_manifests(deploy: Invoke, project: Path) -> None:
    for target in ("helm", "kubernetes"):
        assert deploy(target, *ARGUMENTS).exit_code == 0
    assert chart(project / "deploy/helm", "shop") == manifests(project / "deploy/kubernetes")
    described = yaml.safe_load((project / "deploy/helm/Chart.yaml").read_text())
    assert (described["apiVersion"], described["name"]) == ("v2", "shop")


def test_helm_agrees(deploy: Invoke, project: Path) -> None:
    helm = find("helm")
    if helm is None:
        pytest.skip("helm is not installed")
    for target in ("helm", "kubernetes"):
        assert deploy(target, *ARGUMENTS).exit_code == 0
    subprocess.run([helm, "lint", "--strict", "deploy/helm"], cwd=project, check=True, capture_output=True, timeout=60)
    rendered = subprocess.run(
        [helm, "template", "shop", "deploy/helm"], cwd=project, check=True, capture_output=True, text=True, timeout=60
    ).stdout
    documents = {document["kind"]: document for document in yaml.safe_load_all(rendered)}
    assert documents == manifests(project / "deploy/kubernetes")


# Jenkins.


@pytest.mark.parametrize(("image", "registry"), [("shop", ""), ("registry.example.org/shop", " registry.example.org")])
def test_the_pipeline(deploy: Invoke, project: Path, image: str, registry: str) -> None:
    assert deploy("jenkins", f"--image={image}", "--factory").exit_code == 0
    text = (project / "Jenkinsfile").read_text()
    code = re.sub(r"^ *//.*$", "", text, flags=re.MULTILINE)
    scripts = [match[1] or match[2] for match in re.finditer(r"sh (?:'''(.*?)'''|'([^'\n]*)')", code, re.DOTALL)]
    assert len(scripts) == 4
    for script in scripts:
        subprocess.run([require("sh"), "-n"], input=script, text=True, check=True, timeout=30)
    assert f"--password-stdin{registry}\n" in scripts[2]
    assert ".venv-ci/bin/armature routes shop:app --factory\n" in scripts[0]
    structure = re.sub(r"'''.*?'''|'[^'\n]*'", "", code, flags=re.DOTALL)
    for opening, closing in ("{}", "()", "[]"):
        assert structure.count(opening) == structure.count(closing)
    # In Groovy only double quotes have values filled in.
    assert '"' not in structure
