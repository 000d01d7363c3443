"""The container image: how large it is, and that it runs read-only, as nobody in particular, without a network."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.delivery.images import Builder, builder, make_base, make_image, run_read_only, settings_of
from tests.delivery.isolation import assert_served_without_network, needs
from tests.plugins.processes import free_port

pytestmark = [
    pytest.mark.delivery,
    pytest.mark.timeout(1800),
    needs("buildah", "mmdebstrap", "chroot", "setpriv", "pip"),
]

MB = 1_000_000
LARGEST_LAYERS_BYTES = 150 * MB
LARGEST_TOKENIZERS_BYTES = 60 * MB
HEALTHY_S = 1.5
"""From start to healthy, by the clock, or of processor time where others take the processor."""


@pytest.fixture(scope="module")
def build() -> Iterator[Builder]:
    with builder() as made:
        yield made


@pytest.fixture(scope="module")
def image(build: Builder) -> str:
    base = make_base(build)
    started = time.monotonic()
    made = make_image(build, base=base, families="openai qwen deepseek")
    print(f"\nbuilt in {time.monotonic() - started:.0f} s on {build.driver}")
    return made


@pytest.fixture(scope="module")
def settings(build: Builder, image: str) -> dict[str, Any]:
    return settings_of(build, image)


def test_image_adds_little_to_its_base(build: Builder, image: str) -> None:
    layers = build.size(image) - build.size("localhost/base")
    tokenizers = build.size(image, "/opt/models")
    print(f"\nlayers {layers / MB:.1f} MB, of these tokenizers {tokenizers / MB:.1f} MB")
    assert 0 < tokenizers < LARGEST_TOKENIZERS_BYTES
    assert layers <= LARGEST_LAYERS_BYTES


def test_image_holds_nothing_that_only_building_needs(build: Builder, image: str) -> None:
    with build.mounted(image) as root:
        found = {path.name for path in (root / "opt/tollgate/lib").glob("python3*/site-packages/*")}
        assert "gateway" in found
        assert not {name for name in found if name.split("-")[0] in ("pip", "setuptools", "huggingface_hub", "pytest")}
        assert not list((root / "opt/tollgate/bin").glob("pip*"))
        assert not (root / "src").exists()
        assert not list((root / "root").glob(".cache/*"))


@pytest.mark.parametrize(("workers", "tmpfs"), [("1", ""), ("2", ""), ("2", "/tmp")])
def test_image_serves_read_only_unprivileged_and_without_a_network(
    build: Builder, image: str, settings: dict[str, Any], tmp_path: Path, workers: str, tmpfs: str
) -> None:
    with build.mounted(image) as root:
        found = run_read_only(root, settings, port=free_port(), folder=tmp_path, tmpfs=tmpfs, TOLLGATE_WORKERS=workers)
    assert_served_without_network(found)
    assert found["process"]["uids"] == [10001]
    assert found["process"]["capabilities"] == 0
    assert sorted(found["look"]["out"].split()) == sorted({"/var/lib/tollgate", tmpfs} - {""})
    assert (found["healthcheck"]["code"], found["healthcheck_after"]["code"]) == (0, 1), found["healthcheck"]
    assert found["health"]["tokenizers"]["installed"] == 19
    print(f"\n{workers} workers: healthy after {found['healthy_s']:.2f} s, {found['process']['cpu_s']:.2f} s of CPU")
    assert workers != "1" or min(found["healthy_s"], found["process"]["cpu_s"]) <= HEALTHY_S


def test_image_has_one_volume_and_a_user_that_is_not_root(settings: dict[str, Any]) -> None:
    assert list(settings["Volumes"]) == ["/var/lib/tollgate"]
    assert settings["User"] == "10001:10001"
    assert "curl" not in str(settings["Healthcheck"])
