"""What an owner of a GPU host can set about model files."""

from pathlib import Path

from pydantic import Field, PositiveFloat, PositiveInt

from llorch.settings import DaemonSettings
from pool_managerd.models.download.policy import DownloadPolicy

_MIB = 2**20
_HOUR_S = 3600.0


class ModelSettings(DaemonSettings):
    """A part of `[pool_manager]`."""

    models_dir: Path | None = Field(
        None,
        description="Folder whose *.gguf files are all offered as models, named by their stems. May also stand at the "
        "top of the settings file.",
    )
    model_cache_dir: Path | None = Field(
        None, description="Folder for downloaded models. Default: `models` in the data directory."
    )
    model_cache_mib: PositiveInt | None = Field(
        None,
        description="Disk space for downloaded models, in MiB; those not used for longest make room for new ones, "
        "loaded ones never. Default: what the disk has, but for 1 GiB.",
    )
    download_max_mib: PositiveInt = Field(1_048_576, description="Largest file that is downloaded, in MiB.")
    download_max_hours: PositiveFloat = Field(24.0, description="Time that the download of a file may take, in hours.")
    download_hosts: list[str] = Field(
        [],
        description="Hosts that models may be downloaded from, as names or patterns like *.hf.co; may be repeated. "
        "Default: all with a public address. The Hub needs huggingface.co and *.hf.co.",
    )
    download_private_hosts: list[str] = Field(
        [],
        description="Hosts that may have an address inside of this network, such as nas.lan, if a reference names "
        "them; may be repeated.",
    )
    download_ca_file: Path | None = Field(
        None, description="Certificate authorities (PEM) that downloads trust besides those of the system."
    )

    @property
    def download_policy(self) -> DownloadPolicy:
        return DownloadPolicy(
            hosts=tuple(self.download_hosts),
            private_hosts=tuple(self.download_private_hosts),
            max_file_bytes=self.download_max_mib * _MIB,
            max_duration_s=self.download_max_hours * _HOUR_S,
        )

    @property
    def model_cache_bytes(self) -> int | None:
        return None if self.model_cache_mib is None else self.model_cache_mib * _MIB
