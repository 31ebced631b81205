import pickle
import resource
from pathlib import Path

import pytest
import torch
from torch import nn

from optbench.recovery.checkpoint import CheckpointFiles, load_weights, read_checkpoint


def net(hidden: int = 4) -> nn.Sequential:
    torch.manual_seed(hidden)
    return nn.Sequential(nn.Linear(3, hidden), nn.BatchNorm1d(hidden), nn.Linear(hidden, 2))


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "best.ckpt"
    torch.save({"state_dict": net().state_dict(), "epoch": 2}, path)
    return path


def refused(path: Path) -> str:
    with pytest.raises(ValueError, match="ckpt_path") as error:
        read_checkpoint(path, "ckpt_path")
    return str(error.value)


def test_weights_and_statistics_come_back(checkpoint):
    content = read_checkpoint(checkpoint, "ckpt_path")
    other = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    assert content["epoch"] == 2 and not torch.equal(other[0].weight, net()[0].weight)
    load_weights(other, content, checkpoint, "ckpt_path")
    for name, tensor in net().state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor), name


def test_a_disk_that_becomes_full_leaves_the_old_file_and_names_it(checkpoint):
    before, limits = checkpoint.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))  # what a process may write into one file
    try:
        with pytest.raises(OSError, match="File too large") as error:
            CheckpointFiles().save_checkpoint({"state_dict": net(hidden=10_000).state_dict()}, checkpoint)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert error.value.filename == str(checkpoint)
    assert checkpoint.read_bytes() == before
    assert list(checkpoint.parent.iterdir()) == [checkpoint]


def test_a_missing_file(tmp_path):
    for path in (tmp_path / "none.ckpt", tmp_path):
        sentence = f"ckpt_path={path} is no file. Give a checkpoint, for example <run folder>/checkpoints/last.ckpt."
        assert refused(path) == sentence


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_truncated_anywhere(tmp_path, zipped):
    path = tmp_path / "best.ckpt"
    torch.save({"state_dict": net().state_dict()}, path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    for length in [*range(12), *range(12, len(whole) - 1, 37), len(whole) - 1]:
        path.write_bytes(whole[:length])
        assert f"ckpt_path={path} cannot be read: it is truncated, or no checkpoint" in refused(path)


@pytest.mark.parametrize(
    "text", ["epoch,step\n1,352\n", "# notes\n", "status: completed\n", "R", "a", "(", "\x80\x02", ""]
)
def test_a_text_file(tmp_path, text):
    path = tmp_path / "metrics.csv"
    path.write_text(text)
    assert f"ckpt_path={path} cannot be read: it is truncated, or no checkpoint that PyTorch wrote (" in refused(path)


@pytest.mark.parametrize("content", [[1, 2], {"model": {}}, {"state_dict": [1]}, torch.zeros(2)])
def test_what_pytorch_wrote_but_no_run(tmp_path, content):
    path = tmp_path / "weights.pt"
    torch.save(content, path)
    assert refused(path) == f"ckpt_path={path} is no checkpoint of a run: it has no state_dict."


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        (net(5), "its 0.weight is (4, 3), here it is (5, 3)"),
        (nn.Sequential(*net(), nn.Linear(2, 2)), "it lacks 3.weight"),
        (net()[:2], "it has 2.weight, which this network lacks"),
        (nn.Sequential(nn.Linear(3, 4), nn.Identity(), nn.Linear(4, 2)), "it has 1.weight, which this network lacks"),
    ],
)
def test_another_network(checkpoint, other, difference):
    before = {name: tensor.clone() for name, tensor in other.state_dict().items()}
    with pytest.raises(ValueError, match="another network") as error:
        load_weights(other, read_checkpoint(checkpoint, "ckpt_path"), checkpoint, "ckpt_path")
    assert str(error.value) == (
        f"ckpt_path={checkpoint} is of another network: {difference}. Use the model.* values it was trained with."
    )
    assert all(torch.equal(tensor, before[name]) for name, tensor in other.state_dict().items())


class Malicious:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return Path.touch, (self.trace,)


@pytest.mark.parametrize("zipped", [True, False, None])
def test_a_malicious_pickle_executes_nothing(tmp_path, zipped):
    path, trace = tmp_path / "evil.ckpt", tmp_path / "trace"
    content = {"state_dict": net().state_dict(), "hyper_parameters": Malicious(trace)}
    if zipped is None:
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=zipped)
    assert f"ckpt_path={path} cannot be read" in refused(path)
    assert not trace.exists()
    if zipped is None:
        pickle.loads(path.read_bytes())
        assert trace.exists()  # it would have
