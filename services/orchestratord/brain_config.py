"""The limits and times of the brain, as the settings say."""

from orchestratord.core.facts.queue_room import QueuePolicy
from orchestratord.core.facts.rules import OverridePolicy
from orchestratord.core.state import BrainConfig
from orchestratord.settings import OrchestratorSettings


def brain_config_of(settings: OrchestratorSettings) -> BrainConfig:
    return BrainConfig(
        queue_capacity=settings.queue_capacity,
        queue_bytes=settings.queue_mib * 2**20,
        queue_policy=QueuePolicy(settings.queue_policy),
        max_starvation_s=settings.max_starvation_s,
        session_ttl_s=settings.session_ttl_s,
        override_policy=OverridePolicy(settings.placement_overrides),
        min_residency_s=settings.min_residency_s,
        model_wait_s=settings.model_wait_s,
        replica_idle_s=settings.replica_idle_s,
        node_lost_s=settings.node_lost_s,
        recovery_window_s=settings.recovery_window_s,
        task_retention_s=settings.task_retention_s,
        tasks_retained=settings.tasks_retained,
        disconnect_grace_s=settings.disconnect_grace_s,
    )
