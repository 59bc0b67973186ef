"""The board of the machines: GPUs as DCGM and as Triton see them, processors, memory, network."""

from __future__ import annotations

from deploy.grafana.board import Board, Panel, Query, Row, Step, Variable
from deploy.grafana.queries import IN_CLUSTER, RATE, rate

# Machines are watched where the service is not running too.
CLUSTER = Variable("cluster", "Cluster", "node_uname_info")
BY_GPU = "{{instance}} {{gpu}}"
IDLE = f'{IN_CLUSTER},mode="idle"'


def of_gpu(metric: str, factor: str = "") -> Query:
    """A gauge of DCGM's, by GPU."""
    return Query(f"max by (instance, gpu) ({metric}{{{IN_CLUSTER}}}){factor}", BY_GPU)


def of_triton(metric: str, factor: str = "") -> Query:
    """A gauge of Triton's, by GPU."""
    by = "instance, gpu_uuid"
    return Query(f"max by ({by}) ({metric}{{{IN_CLUSTER}}}){factor}", "{{instance}} {{gpu_uuid}}")


DCGM = Row(
    "GPUs, by the DCGM exporter",
    (
        Panel(
            title="Tensor cores at work",
            description="Share of cycles. High: the backbone is what limits, which is what one "
            "pays for.",
            unit="percentunit",
            minimum=0,
            maximum=1,
            queries=(of_gpu("DCGM_FI_PROF_PIPE_TENSOR_ACTIVE"),),
            runbook="gpu",
        ),
        Panel(
            title="GPU in use",
            description="Share of time with a kernel on it. High with idle tensor cores: small "
            "batches, or memory.",
            unit="percent",
            minimum=0,
            maximum=100,
            queries=(of_gpu("DCGM_FI_DEV_GPU_UTIL"),),
            runbook="gpu",
        ),
        Panel(
            title="Video decoder in use",
            description="NVDEC. The service decodes on the processors: this stays at 0 unless "
            "something else uses it.",
            unit="percent",
            minimum=0,
            maximum=100,
            queries=(of_gpu("DCGM_FI_DEV_DEC_UTIL"),),
            runbook="gpu",
        ),
        Panel(
            title="Memory in use",
            description="Of the GPU's own.",
            unit="percentunit",
            minimum=0,
            maximum=1,
            steps=(Step(0.95, "red"),),
            queries=(
                Query(
                    f"max by (instance, gpu) (DCGM_FI_DEV_FB_USED{{{IN_CLUSTER}}}"
                    f" / (DCGM_FI_DEV_FB_USED{{{IN_CLUSTER}}}"
                    f" + DCGM_FI_DEV_FB_FREE{{{IN_CLUSTER}}}))",
                    BY_GPU,
                ),
            ),
            runbook="gpu",
        ),
        Panel(
            title="Power",
            description="Watts. Far below the limit under load: the GPU is being fed too slowly.",
            unit="watt",
            minimum=0,
            queries=(of_gpu("DCGM_FI_DEV_POWER_USAGE"),),
            runbook="gpu",
        ),
        Panel(
            title="Temperature",
            description="Of the GPU. From about 85 degrees on it slows down.",
            unit="celsius",
            steps=(Step(85, "red"),),
            queries=(of_gpu("DCGM_FI_DEV_GPU_TEMP"),),
            runbook="gpu",
        ),
        Panel(
            title="PCIe",
            description="Bytes a second to and from the GPU. Clips go in as bytes, not as floats.",
            unit="Bps",
            minimum=0,
            queries=(
                of_gpu("DCGM_FI_PROF_PCIE_RX_BYTES"),
                of_gpu("DCGM_FI_PROF_PCIE_TX_BYTES"),
            ),
            runbook="gpu",
        ),
        Panel(
            title="Clock",
            description="Of the SMs. A fall under load: heat or power.",
            unit="rotmhz",
            queries=(of_gpu("DCGM_FI_DEV_SM_CLOCK"),),
            runbook="gpu",
        ),
        Panel(
            title="Last XID error",
            description="Other than 0: the driver's log has it; the GPU may have to be taken out.",
            unit="none",
            minimum=0,
            steps=(Step(1, "red"),),
            queries=(of_gpu("DCGM_FI_DEV_XID_ERRORS"),),
            runbook="gpu",
        ),
    ),
)

TRITON = Row(
    "GPUs, by Triton",
    (
        Panel(
            title="GPU in use",
            description="Share of time with a kernel on it.",
            unit="percentunit",
            minimum=0,
            maximum=1,
            queries=(of_triton("nv_gpu_utilization"),),
            runbook="gpu",
        ),
        Panel(
            title="Memory in use",
            description="Of the GPU's own.",
            unit="percentunit",
            minimum=0,
            maximum=1,
            queries=(
                Query(
                    f"max by (instance, gpu_uuid) (nv_gpu_memory_used_bytes{{{IN_CLUSTER}}}"
                    f" / nv_gpu_memory_total_bytes{{{IN_CLUSTER}}})",
                    "{{instance}} {{gpu_uuid}}",
                ),
            ),
            runbook="gpu",
        ),
        Panel(
            title="Power of its limit",
            description="Share of the limit that is drawn.",
            unit="percentunit",
            minimum=0,
            queries=(
                Query(
                    f"max by (instance, gpu_uuid) (nv_gpu_power_usage{{{IN_CLUSTER}}}"
                    f" / nv_gpu_power_limit{{{IN_CLUSTER}}})",
                    "{{instance}} {{gpu_uuid}}",
                ),
            ),
            runbook="gpu",
        ),
    ),
)

MACHINE_ROW = Row(
    "Machines, by the node exporter",
    (
        Panel(
            title="Processors in use",
            description="Share of all cores. On a CPU node the stages share them: 1 is what one "
            "pays for, with a queue behind it a reason to add nodes.",
            unit="percentunit",
            minimum=0,
            maximum=1,
            queries=(
                Query(
                    f"1 - avg by (instance) ({rate('node_cpu_seconds_total', IDLE)})",
                    "{{instance}}",
                ),
            ),
            runbook="saturation",
        ),
        Panel(
            title="Waiting for processors",
            description="Share of time in which some task waited for a core (PSI).",
            unit="percentunit",
            minimum=0,
            maximum=1,
            queries=(
                Query(
                    "max by (instance) "
                    f"({rate('node_pressure_cpu_waiting_seconds_total', IN_CLUSTER)})",
                    "{{instance}}",
                ),
            ),
            runbook="saturation",
        ),
        Panel(
            title="Memory available",
            description="Share of all. /dev/shm and decoded frames count.",
            unit="percentunit",
            minimum=0,
            maximum=1,
            queries=(
                Query(
                    f"min by (instance) (node_memory_MemAvailable_bytes{{{IN_CLUSTER}}}"
                    f" / node_memory_MemTotal_bytes{{{IN_CLUSTER}}})",
                    "{{instance}}",
                ),
            ),
            runbook="saturation",
        ),
        Panel(
            title="Network in",
            description="Bytes a second, by machine: videos from the object store.",
            unit="Bps",
            minimum=0,
            queries=(
                Query(
                    "sum by (instance) "
                    f"(rate(node_network_receive_bytes_total{{{IN_CLUSTER},"
                    f'device!="lo"}}[{RATE}]))',
                    "{{instance}}",
                ),
            ),
            runbook="slow-answers",
        ),
        Panel(
            title="Disk free",
            description="Share, the fullest file system of each machine. The spool is on one.",
            unit="percentunit",
            minimum=0,
            maximum=1,
            queries=(
                Query(
                    "min by (instance) "
                    f'(node_filesystem_avail_bytes{{{IN_CLUSTER},fstype!~"tmpfs|overlay"}}'
                    f' / node_filesystem_size_bytes{{{IN_CLUSTER},fstype!~"tmpfs|overlay"}})',
                    "{{instance}}",
                ),
            ),
            runbook="spool-full",
        ),
    ),
)

MACHINE = Board(
    uid="backtal-machine",
    title="backtal / Machine and GPU",
    description="What the hardware does: GPUs, processors, memory, network.",
    variables=(CLUSTER,),
    rows=(DCGM, TRITON, MACHINE_ROW),
)
