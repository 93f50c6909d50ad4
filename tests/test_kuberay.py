"""The KubeRay manifests against what the program needs: commands, settings, resources, volumes, secrets.

KubeRay itself can't run here. The rules that are checked are those of its own validation (a job on a standing cluster
is never tried again and never shut down) and of its field reference.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml
from bittensor_core import Keypair

from raytensor import cli, config
from raytensor.chain.wallet import DevKey, WalletKey, write_key

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "jobs" / "kuberay"
DOCUMENTS = [
    (path.name, document) for path in sorted(FOLDER.glob("*.yaml")) for document in yaml.safe_load_all(path.read_text())
]
JOBS = {document["metadata"]["labels"]["job"]: document for _, document in DOCUMENTS if document["kind"] == "RayJob"}
STANDING = {
    document["metadata"]["name"]: document["spec"] for _, document in DOCUMENTS if document["kind"] == "RayCluster"
}
CLUSTERS = [
    *STANDING.values(),
    *(job["spec"]["rayClusterSpec"] for job in JOBS.values() if "rayClusterSpec" in job["spec"]),
]


def cluster_of(job: dict) -> dict:
    spec = job["spec"]
    return spec["rayClusterSpec"] if "rayClusterSpec" in spec else STANDING[spec["clusterSelector"]["ray.io/cluster"]]


def command(job: str) -> list[str]:
    return shlex.split(JOBS[job]["spec"]["entrypoint"])


def settings(job: str):
    return config.compose(job, [arg for arg in command(job)[2:] if not arg.startswith("--")])


def pods(cluster: dict) -> dict[str, dict]:
    """Name of the group -> its pod's spec."""
    workers = {group["groupName"]: group["template"]["spec"] for group in cluster["workerGroupSpecs"]}
    return {"head": cluster["headGroupSpec"]["template"]["spec"]} | workers


def room(cluster: dict) -> tuple[float, float]:
    """(CPUs, GPUs) that Ray offers: the head's as it is told, the workers' as their pods have."""
    head = cluster["headGroupSpec"]["rayStartParams"]
    cpus, gpus = float(head["num-cpus"]), float(head["num-gpus"])
    for group in cluster["workerGroupSpecs"]:
        limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
        cpus += group["replicas"] * float(limits["cpu"])
        gpus += group["replicas"] * float(limits.get("nvidia.com/gpu", 0))
    return cpus, gpus


def test_there_is_a_job_for_each_command_that_needs_a_cluster():
    assert set(JOBS) == {"run", "train", "sweep", "validate"}
    for name, job in JOBS.items():
        assert (job["apiVersion"], job["metadata"]["name"]) == ("ray.io/v1", f"raytensor-{name}")
        assert command(name)[:2] == ["raytensor", name] and name in cli.COMMANDS


@pytest.mark.parametrize("job", ["run", "train", "sweep"])
def test_the_command_is_accepted_as_it_stands(job, capsys):
    assert cli.main([*command(job)[1:], "dry_run=true"]) == 0, capsys.readouterr().err


def test_the_validator_s_command_finds_the_hotkeys_where_the_secret_puts_them(tmp_path, capsys):
    (volume,) = [one["secret"] for one in pods(cluster_of(JOBS["validate"]))["head"]["volumes"] if "secret" in one]
    assert volume["defaultMode"] & 0o007 == 0, "a key that others can read is refused"
    for item in volume["items"]:
        wallet, folder, hotkey = item["path"].split("/")
        assert folder == "hotkeys", "never a coldkey"
        write_key(WalletKey(wallet, hotkey, tmp_path), Keypair.create_from_uri("//Alice"))
        (tmp_path / item["path"]).chmod(volume["defaultMode"])
    given = [arg.replace("wallet_path=/wallets", f"wallet_path={tmp_path}") for arg in command("validate")[1:]]
    assert cli.main([*given, "dry_run=true"]) == 0, capsys.readouterr().err
    assert DevKey("//Alice").ss58 in capsys.readouterr().out


@pytest.mark.parametrize("job", ["run", "train", "sweep", "validate"])
def test_settings_fit_a_cluster(job):
    cfg, cluster = settings(job), cluster_of(JOBS[job])
    assert cfg.cluster.address == "auto" and cfg.name, "a name, so that a job that is started again goes on"
    assert getattr(cfg, "resume", "auto") == "auto"
    for path in (cfg.paths.runs, cfg.paths.cache):
        assert Path(path).is_relative_to("/state" if job == "validate" else "/shared")
    cpus, gpus = room(cluster)
    needs = needs_of(job, cfg, {"CPU": cpus, "GPU": gpus})
    assert sum(count * each for count, each, _ in needs) <= cpus, needs
    assert sum(count * each for count, _, each in needs) <= gpus, needs
    assert sum(count * each for count, _, each in needs) > 0, "the GPU workers have something to do"
    # The chain's writer stands on the driver's own node, which is the head.
    assert float(cluster["headGroupSpec"]["rayStartParams"]["num-cpus"]) >= 0.1


def needs_of(job: str, cfg, on: dict[str, float]) -> list[tuple[int, float, float]]:
    if job == "sweep":  # the largest trial
        profile = cfg.search.space
        return [(max(profile["profile.ranks"]["choice"]), 0.5, max(profile["profile.gpus_per_rank"]["choice"]))]
    if job == "run":
        from raytensor.jobs.run.plan import needs

        found = needs(cfg, on)
    elif job == "train":
        from raytensor.jobs.train import needs

        found = needs(cfg)
    else:
        from raytensor.jobs.validate.stack import needs

        found = needs(cfg)
    return [(need.count, need.cpus, need.gpus) for need in found]


@pytest.mark.parametrize("cluster", CLUSTERS, ids=["standing", "validator"])
def test_a_cluster_has_what_every_process_needs(cluster):
    is_standing = cluster in STANDING.values()
    claims = {d["metadata"]["name"]: d["spec"] for _, d in DOCUMENTS if d["kind"] == "PersistentVolumeClaim"}
    assert {name: claim["accessModes"] for name, claim in claims.items()} == {
        "raytensor-shared": ["ReadWriteMany"],
        "raytensor-validator": ["ReadWriteOnce"],  # journal and leases are SQLite files
    }
    assert cluster["authOptions"] == {"mode": "token", "secretName": "raytensor-token"}
    low, high = re.search(r'"ray\[[^]]*\]>=([\d.]+),<([\d.]+)"', (ROOT / "pyproject.toml").read_text()).groups()
    number = [int(part) for part in cluster["rayVersion"].split(".")]
    assert [*map(int, low.split("."))] <= number < [*map(int, high.split("."))]
    for name, pod in pods(cluster).items():
        (container,) = pod["containers"]
        assert (
            container["image"] == "raytensor:0.1.0"
            and container["resources"]["limits"] == container["resources"]["requests"]
        )
        volumes = {volume["name"]: volume for volume in pod.get("volumes", [])}
        mounts = {mount["name"]: mount["mountPath"] for mount in container.get("volumeMounts", [])}
        assert set(mounts) == set(volumes), name
        place = {"shared": "/shared"} if is_standing else {"state": "/state"} if name == "head" else {}
        assert {volume: mounts[volume] for volume in mounts if "persistentVolumeClaim" in volumes[volume]} == place, (
            "who reads what strangers send sees no state"
        )
        for volume in place:
            claim = volumes[volume]["persistentVolumeClaim"]["claimName"]
            assert claim == ("raytensor-shared" if is_standing else "raytensor-validator")
        assert ("secret" in str(pod).lower()) <= (name == "head"), "scorers and miners hold no key"
        for variable in container.get("env", []):
            known = variable["name"] == "RAYTENSOR_NETWORK_STATE"
            assert "value" not in variable or known, "a secret is named, never written down"
    assert {port["containerPort"] for port in pods(cluster)["head"]["containers"][0]["ports"]} == {6379, 8265, 8080}


def test_the_rules_of_kuberay():
    for name, job in JOBS.items():
        spec = job["spec"]
        assert ("clusterSelector" in spec) != ("rayClusterSpec" in spec)
        if "clusterSelector" in spec:
            assert not {"backoffLimit", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished", "suspend"} & set(spec), (
                name
            )
        else:
            assert spec["shutdownAfterJobFinishes"] and spec["ttlSecondsAfterFinished"] > 0 and spec["backoffLimit"] > 0
    assert all(re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", document["metadata"]["name"]) for _, document in DOCUMENTS)


def test_secrets_are_named_where_they_are_made():
    """Each secret that a manifest uses has its `kubectl create secret` line; the webhook's variable is the head's."""
    made, used = set(), set()
    for path in FOLDER.glob("*.yaml"):
        text = path.read_text()
        made |= set(re.findall(r"kubectl create secret generic ([\w-]+)", text))
        used |= set(re.findall(r"secretName: ([\w-]+)", text)) | set(
            re.findall(r"secretKeyRef: \{name: ([\w-]+)", text)
        )
        assert "unrun" in text.lower(), f"{path.name} says that nobody has run it"
    assert made == used == {"raytensor-token", "raytensor-hotkeys", "raytensor-alarms"}
    head = pods(cluster_of(JOBS["validate"]))["head"]["containers"][0]
    assert settings("validate").watch.webhook_env in [variable["name"] for variable in head["env"]]
    assert settings("validate").wallet_path in [
        mount["mountPath"] for mount in head["volumeMounts"] if mount.get("readOnly")
    ]
