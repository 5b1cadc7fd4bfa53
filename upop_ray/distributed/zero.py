"""The DeepSpeed engine: one model sharded over the workers of a replica by ZeRO 0, 1, 2 or 3."""

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from upop_ray.config import Replica
from upop_ray.tasks.collective import rank, world_size
from upop_ray.training.engine import Engine, EngineFactory, EngineSettings, build_optimizer

_LINEAR = nn.functional.linear


def zero_engine(replica: Replica, batch_size: int) -> EngineFactory:
    """A factory of DeepSpeed engines as ``replica`` says; needs :func:`start_process_group` before."""

    def build(model: nn.Module, settings: EngineSettings) -> Engine:
        return ZeroEngine(model, settings, replica, batch_size)

    return build


def start_process_group(replica: Replica, rank: int, address: str, port: int) -> None:
    """Join this process to the replica's process group, as rank ``rank`` of ``replica.workers``."""
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK="0",
        LOCAL_SIZE="1",
        WORLD_SIZE=str(replica.workers),
        MASTER_ADDR=address,
        MASTER_PORT=str(port),
    )
    if replica.gpus_per_worker == 0:
        os.environ["DS_ACCELERATOR"] = "cpu"
    deepspeed = _deepspeed()
    deepspeed.init_distributed(dist_backend=replica.backend, verbose=False)


def _deepspeed() -> Any:
    import deepspeed
    from deepspeed.ops import __compatible_ops__

    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    # the shared-memory all-reduce for CPUs is compiled at first use: a compiler and half a minute; gloo does without
    __compatible_ops__["deepspeed_shm_comm"] = False
    return deepspeed


class ZeroEngine:
    """An :class:`~upop_ray.training.engine.Engine` on DeepSpeed.

    bf16: ZeRO 1 to 3 keep bf16 weights with fp32 masters; ZeRO 0 keeps fp32 weights and computes under autocast.
    """

    def __init__(self, model: nn.Module, settings: EngineSettings, replica: Replica, batch_size: int) -> None:
        deepspeed = _deepspeed()
        self.model = model.train()
        self._stage = replica.zero_stage
        self._autocast = settings.precision == "bf16" and self._stage == 0
        self._scalars = _with_one_dimension(model)
        config = _deepspeed_config(settings, replica, batch_size)
        optimizer = build_optimizer(model.parameters(), settings)
        self._engine, _, _, _ = deepspeed.initialize(model=model, optimizer=optimizer, config=config)
        self._base = self._engine.basic_optimizer

    def forward(self, **inputs: Any) -> Any:
        device = self._engine.device
        context = torch.autocast(torch.device(device).type, torch.bfloat16) if self._autocast else nullcontext()
        with context:
            return self._engine(**inputs)

    def backward(self, loss: Tensor) -> None:
        self._engine.backward(loss)

    def step(self, learning_rate: float) -> None:
        for group in self._engine.optimizer.param_groups:
            group["lr"] = learning_rate
        self._engine.step()

    @contextmanager
    def gathered(self) -> Iterator[Mapping[str, Tensor]]:
        with self._whole():
            yield dict(self.model.named_parameters())

    def weights(self) -> dict[str, Tensor]:
        from deepspeed.utils import safe_get_full_fp32_param

        buffers = {name for name, _ in self.model.named_buffers()}
        weights = {
            name: value.detach().cpu().clone() for name, value in self.model.state_dict().items() if name in buffers
        }
        # tied parameters under each of their names, as in the model's own state dict
        for name, parameter in self.model.named_parameters(remove_duplicate=False):
            master = parameter if self._stage == 0 else safe_get_full_fp32_param(parameter)
            weights[name] = self._shaped(name, master.detach().cpu().clone())
        return weights

    def optimizer_state(self) -> dict[str, Tensor]:
        from deepspeed.utils import safe_get_full_optimizer_state

        state: dict[str, Tensor] = {}
        partitions = self._partitions()
        first = self._base.state.get(partitions[0], {})
        entries = [key for key, value in first.items() if isinstance(value, Tensor) and value.dim() > 0]
        for name, parameter in self.model.named_parameters():
            own = self._base.state.get(parameter, {}) if self._stage == 0 else {}
            for entry in own or entries:
                if self._stage == 0:
                    value = torch.as_tensor(own[entry])
                else:
                    value = safe_get_full_optimizer_state(parameter, entry)
                state[f"{name}/{entry}"] = (
                    self._shaped(name, value.detach().cpu().clone()) if value.dim() else value.clone()
                )
            if "step" in first and self._stage > 0:
                state[f"{name}/step"] = torch.as_tensor(first["step"]).clone().float()
        return state

    @torch.no_grad()
    def load(self, weights: Mapping[str, Tensor], optimizer_state: Mapping[str, Tensor]) -> None:
        parameters = dict(self.model.named_parameters())
        with self._whole(modified=True):
            for name, value in self.model.state_dict(keep_vars=True).items():
                value.data.copy_(weights[name].reshape(value.shape))
        self._make_state(optimizer_state)
        for name, parameter in parameters.items():
            self._set(parameter, None, weights[name])
        for key, value in optimizer_state.items():
            name, _, entry = key.rpartition("/")
            if entry != "step":
                self._set(parameters[name], entry, value)

    def close(self) -> None:
        self._engine.destroy()
        # ZeRO-3 puts another in place for the whole process; it rounds differently, and a warm worker goes on
        nn.functional.linear = _LINEAR

    def _whole(self, modified: bool = False) -> Any:
        if self._stage < 3:
            return nullcontext()
        from deepspeed import zero

        return zero.GatheredParameters(list(self.model.parameters()), modifier_rank=0 if modified else None)

    def _shaped(self, name: str, value: Tensor) -> Tensor:
        return value.reshape(()) if name in self._scalars else value

    def _partitions(self) -> list[Tensor]:
        """The flat tensors that the base optimizer's state belongs to."""
        optimizer = self._engine.optimizer
        if self._stage == 0:
            return [parameter for group in self._base.param_groups for parameter in group["params"]]
        if self._stage == 3:
            return list(optimizer.fp32_partitioned_groups_flat)
        return list(optimizer.single_partition_of_fp32_groups)

    def _make_state(self, saved: Mapping[str, Tensor]) -> None:
        """Give the base optimizer the entries that it would otherwise make at its first step."""
        entries: dict[str, Tensor] = {key.rpartition("/")[2]: value for key, value in saved.items()}
        if not entries:
            return
        for partition in self._partitions():
            state = {key: torch.zeros_like(partition) for key in entries if key != "step"}
            if "step" in entries:
                state["step"] = entries["step"].clone()
            self._base.state[partition] = state
        link: Callable[[], None] | None = getattr(self._engine.optimizer, "_lazy_init_hp_params_optimizer_state", None)
        if link is not None:
            link()

    def _set(self, parameter: nn.Parameter, entry: str | None, value: Tensor) -> None:
        from deepspeed import utils

        value = value.reshape(-1).to(self._engine.device)
        if self._stage == 0:
            target = parameter.data if entry is None else self._base.state[parameter][entry]
            target.copy_(value.reshape(target.shape))
            return
        if self._stage == 3:
            # DeepSpeed's own setter of whole values fails where the size is no multiple of the number of workers
            own = _partition_of(value.float(), utils.safe_get_local_fp32_param(parameter).numel())
            if entry is None:
                utils.safe_set_local_fp32_param(parameter, own)
            else:
                utils.safe_set_local_optimizer_state(parameter, own, entry)
        elif entry is None:
            utils.safe_set_full_fp32_param(parameter, value.float())
        else:
            utils.safe_set_full_optimizer_state(parameter, value.float(), entry)


def _partition_of(value: Tensor, size: int) -> Tensor:
    """This rank's part (size,) of a flat tensor that is padded to whole parts."""
    padded = nn.functional.pad(value, (0, size * world_size() - len(value)))
    return padded.narrow(0, rank() * size, size)


def _deepspeed_config(settings: EngineSettings, replica: Replica, batch_size: int) -> dict[str, Any]:
    low = settings.precision == "bf16" and replica.zero_stage > 0
    ours = {
        "train_batch_size": batch_size,
        "train_micro_batch_size_per_gpu": batch_size // replica.workers,
        "zero_optimization": {"stage": replica.zero_stage},
        "bf16": {"enabled": low},
        # DeepSpeed clips to norm 1 unless told otherwise
        "gradient_clipping": settings.optimizer.gradient_clipping,
        "zero_allow_untested_optimizer": True,
        "wall_clock_breakdown": False,
        "steps_per_print": 2**31,
    }
    return _merged(ours, replica.deepspeed)


def _merged(ours: dict[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(ours)
    for key, value in theirs.items():
        inner = result.get(key)
        result[key] = _merged(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return result


def _with_one_dimension(model: nn.Module) -> tuple[str, ...]:
    """Give parameters without a dimension one, in place: DeepSpeed views each parameter as bytes and needs it."""
    names = tuple(name for name, parameter in model.named_parameters() if parameter.dim() == 0)
    for name in names:
        _replace_parameter(model, name, model.get_parameter(name).detach().reshape(1))
    return names


def _replace_parameter(model: nn.Module, name: str, value: Tensor) -> None:
    path, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(path), leaf, nn.Parameter(value))
