"""Reading, writing and refusing files of weights."""

import io
import json
import os
import pickle
import subprocess
import sys

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from gigaseg.errors import CheckpointError
from gigaseg.files import sha256_file
from gigaseg.sam.checkpoints import read_checkpoint, read_delta, read_state, write_delta, write_state
from gigaseg.sam.downloads import named_base

CARD = {"licence": "CC0", "metrics": {"iou": 0.83}, "note": "µm"}


def state():
    torch.manual_seed(0)
    return {"weight": torch.randn(80, 60), "bias": torch.randn(60), "steps": torch.tensor(7)}


class Malicious:
    """Unpickling it would write a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.system, (f"touch {self.path}",))


def test_what_is_written_is_read_with_its_card_and_the_same_bytes_again(tmp_path):
    one, other = tmp_path / "one.safetensors", tmp_path / "other.safetensors"
    write_state(one, state(), CARD)
    found, card = read_state(one)
    assert card == CARD
    assert found.keys() == state().keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in state().items())
    write_state(other, dict(reversed(state().items())), dict(reversed(CARD.items())))
    assert one.read_bytes() == other.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.safetensors", "other.safetensors"]


def test_others_may_read_what_is_written_as_the_umask_says(tmp_path):
    before = os.umask(0o027)
    try:
        write_state(tmp_path / "one.safetensors", state(), CARD)
    finally:
        os.umask(before)
    assert (tmp_path / "one.safetensors").stat().st_mode & 0o777 == 0o640


def test_half_precision_is_for_large_tensors_alone(tmp_path):
    write_state(tmp_path / "half.safetensors", state(), CARD, half=True)
    found, _ = read_state(tmp_path / "half.safetensors")
    assert {name: tensor.dtype for name, tensor in found.items()} == {
        "weight": torch.float16, "bias": torch.float32, "steps": torch.int64
    }  # fmt: skip
    torch.testing.assert_close(found["weight"].float(), state()["weight"], rtol=1e-3, atol=1e-6)


def test_a_value_that_float16_cannot_hold_is_no_silent_infinity(tmp_path):
    with pytest.raises(ValueError, match=r"'weight' is not finite as torch.float16"):
        write_state(tmp_path / "x.safetensors", {"weight": torch.full((80, 60), 1e6)}, {}, half=True)
    assert list(tmp_path.iterdir()) == []


def test_tensors_that_share_memory_are_written_each(tmp_path):
    weight = torch.randn(4, 4)
    write_state(tmp_path / "x.safetensors", {"a": weight, "b": weight, "c": weight.T}, {})
    found, _ = read_state(tmp_path / "x.safetensors")
    assert torch.equal(found["b"], weight)
    assert torch.equal(found["c"], weight.T)


def test_a_file_of_another_program_has_an_empty_card(tmp_path):
    save_file(state(), tmp_path / "x.safetensors")
    assert read_state(tmp_path / "x.safetensors")[1] == {}


def test_a_pickle_with_code_in_it_is_refused_and_the_code_is_not_run(tmp_path):
    trap = tmp_path / "trap"
    torch.save({"weight": torch.zeros(2), "x": Malicious(trap)}, tmp_path / "zip.pth")
    torch.save(Malicious(trap), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Malicious(trap)))
    for name in ("zip.pth", "old.pth", "plain.pth"):
        with pytest.raises(CheckpointError, match=f"{name}: damaged, or ") as caught:
            read_state(tmp_path / name)
        assert "\n" not in str(caught.value)
    assert not trap.exists()
    torch.load(tmp_path / "zip.pth", weights_only=False)  # the trap works
    assert trap.exists()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_truncated_file_is_told(tmp_path, suffix, share):
    path = tmp_path / f"x{suffix}"
    if suffix == ".pth":
        torch.save(state(), path)
    else:
        write_state(path, state(), CARD)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(CheckpointError, match=f"x{suffix}: damaged") as caught:
        read_state(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("none.pth", None, "no such file"),
        ("x.ckpt", b"abc", "suffix is '.ckpt', accepted: .safetensors, .pth, .pt"),
        ("x.pth", {"model": {"weight": 1}}, "holds no state dict"),
        ("x.pt", [torch.zeros(2)], "holds no state dict"),
        ("empty.pth", {}, "holds no state dict"),
    ],
)
def test_what_is_no_checkpoint_is_told(tmp_path, name, content, told):
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(CheckpointError, match=told):
        read_state(path)


def test_a_card_that_is_no_json_object_is_told(tmp_path):
    for text, told in (("{", "damaged"), ("[1]", "card is no JSON object"), ("[" * 100_000, "damaged")):
        save_file(state(), tmp_path / "x.safetensors", metadata={"gigaseg": text})
        with pytest.raises(CheckpointError, match=told):
            read_state(tmp_path / "x.safetensors")


def test_only_safetensors_is_written(tmp_path):
    with pytest.raises(ValueError, match=r"accepted: \.safetensors"):
        write_state(tmp_path / "x.pth", state(), {})


@pytest.mark.parametrize("base_suffix", [".safetensors", ".pth"])
def test_a_delta_holds_what_changed_and_reads_as_the_whole(tmp_path, base_suffix):
    base, path = tmp_path / f"base{base_suffix}", tmp_path / "delta.safetensors"
    if base_suffix == ".pth":
        torch.save(state(), base)
    else:
        write_state(base, state(), {"licence": "CC0"}, half=True)
    trained = {name: t.float() if t.is_floating_point() else t for name, t in read_state(base)[0].items()}
    trained["bias"] = trained["bias"] + 1
    trained["adapter"] = torch.ones(3, 3)
    write_delta(path, trained, base, CARD)
    with safe_open(path, framework="pt") as file:
        assert sorted(file.keys()) == ["adapter", "bias"]
        assert json.loads(file.metadata()["gigaseg"])["base"] == {"name": str(base), "sha256": sha256_file(base)}
    found, card = read_delta(path)
    assert found.keys() == trained.keys()
    assert all(torch.equal(found[name].to(tensor.dtype), tensor) for name, tensor in trained.items())
    assert {**CARD, "base": card["base"]} == card
    base.rename(tmp_path / f"moved{base_suffix}")
    assert read_delta(path, tmp_path / f"moved{base_suffix}")[0].keys() == trained.keys()
    with pytest.raises(CheckpointError, match=r"delta.safetensors: its base: checkpoint is '.*', no such file"):
        read_delta(path)


def test_a_delta_over_another_base_is_refused(tmp_path):
    base, path = tmp_path / "base.safetensors", tmp_path / "delta.safetensors"
    write_state(base, state(), {})
    write_delta(path, {**state(), "bias": torch.zeros(60)}, base, CARD)
    before = sha256_file(base)
    write_state(base, {**state(), "weight": torch.zeros(80, 60)}, {})
    with pytest.raises(CheckpointError, match=f"with sha256 {before}, but .* has {sha256_file(base)}"):
        read_delta(path)


def test_deltas_are_not_stacked_and_lack_nothing(tmp_path):
    base, path = tmp_path / "base.safetensors", tmp_path / "delta.safetensors"
    write_state(base, state(), {})
    write_delta(path, {**state(), "bias": torch.zeros(60)}, base, CARD)
    with pytest.raises(CheckpointError, match="holds changes over"):
        write_delta(tmp_path / "second.safetensors", state(), path, CARD)
    with pytest.raises(CheckpointError, match=r"1 tensors of the base .* are missing, the first: weight"):
        write_delta(path, {"bias": torch.zeros(60), "steps": torch.tensor(7)}, base, CARD)
    with pytest.raises(CheckpointError, match="names no base"):
        read_delta(base)


@pytest.mark.parametrize("base", [3, None, {}, {"name": "vit_b"}, {"name": 1, "sha256": 2}])
def test_a_card_whose_base_is_malformed_is_told(tmp_path, base):
    write_state(tmp_path / "x.safetensors", state(), {"base": base})
    with pytest.raises(CheckpointError, match=r"x\.safetensors: names no base"):
        read_checkpoint(tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match="holds changes over another"):
        write_delta(tmp_path / "y.safetensors", state(), tmp_path / "x.safetensors", {})


def test_a_relative_base_is_looked_for_beside_its_delta(tmp_path, monkeypatch):
    folder = tmp_path / "weights"
    write_state(folder / "base" / "whole.safetensors", state(), {})
    monkeypatch.chdir(tmp_path)
    write_delta("weights/delta.safetensors", {**state(), "bias": torch.ones(60)}, "weights/base/whole.safetensors", {})
    assert named_base(folder / "delta.safetensors") == "base/whole.safetensors"
    folder.rename(tmp_path / "moved")
    (tmp_path / "elsewhere").mkdir()
    for place in (tmp_path, tmp_path / "moved", tmp_path / "elsewhere"):
        monkeypatch.chdir(place)
        found, _ = read_delta(os.path.relpath(tmp_path / "moved" / "delta.safetensors"))
        assert torch.equal(found["bias"], torch.ones(60))
        assert torch.equal(found["weight"], state()["weight"])


def test_a_delta_takes_its_configuration_from_its_base_unless_it_has_one(tmp_path):
    from gigaseg.sam.model import load
    from sam_models import TINY, random_model

    model = random_model(TINY)
    write_state(tmp_path / "base.safetensors", model.state_dict(), {"config": TINY.as_dict()})
    write_delta(tmp_path / "plain.safetensors", model.state_dict(), tmp_path / "base.safetensors", {"licence": "CC0"})
    assert read_delta(tmp_path / "plain.safetensors")[1]["config"] == TINY.as_dict()
    assert load(tmp_path / "plain.safetensors").image_encoder.img_size == TINY.image_size
    own = {**TINY.as_dict(), "name": "own"}
    write_delta(tmp_path / "own.safetensors", model.state_dict(), tmp_path / "base.safetensors", {"config": own})
    assert read_delta(tmp_path / "own.safetensors")[1]["config"]["name"] == "own"


def test_the_base_of_a_delta_is_known_from_its_header_alone(tmp_path):
    write_state(tmp_path / "whole.safetensors", state(), CARD)
    write_state(tmp_path / "delta.safetensors", {}, {"base": {"name": "vit_b", "sha256": "0"}})
    torch.save(state(), tmp_path / "x.pth")
    (tmp_path / "half.safetensors").write_bytes((tmp_path / "delta.safetensors").read_bytes()[:20])
    (tmp_path / "large.safetensors").write_bytes(b"\xff" * 8 + b"{}")
    (tmp_path / "empty.safetensors").write_bytes(b"")
    found = {path.name: named_base(path) for path in tmp_path.iterdir()}
    assert {name for name, base in found.items() if base} == {"delta.safetensors"}
    assert found["delta.safetensors"] == "vit_b"
    assert named_base(tmp_path / "none.safetensors") is None


def test_a_model_is_read_from_a_delta(tmp_path):
    from gigaseg.sam.model import load
    from sam_models import TINY, random_model

    base, model = tmp_path / "base.safetensors", random_model(TINY)
    write_state(base, model.state_dict(), {"config": TINY.as_dict()})
    with torch.no_grad():
        model.mask_decoder.iou_token.weight.add_(1)
    write_delta(tmp_path / "delta.safetensors", model.state_dict(), base, {"config": TINY.as_dict()})
    assert (tmp_path / "delta.safetensors").stat().st_size < 4096
    loaded = load(tmp_path / "delta.safetensors")
    assert all(torch.equal(t, loaded.state_dict()[name]) for name, t in model.state_dict().items())


def test_a_checkpoint_in_memory_of_torch_is_read_like_one_of_our_own(tmp_path):
    buffer = io.BytesIO()
    torch.save(state(), buffer)
    (tmp_path / "x.pt").write_bytes(buffer.getvalue())
    assert torch.equal(read_state(tmp_path / "x.pt")[0]["weight"], state()["weight"])


def test_where_checkpoints_lie_is_known_without_torch():
    code = "import gigaseg.sam.downloads, sys; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
