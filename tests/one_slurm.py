"""A SLURM on this machine alone: real daemons in a folder of their own, two nodes, GPUs that are none.

    python tests/one_slurm.py FOLDER    # runs until it is interrupted, and says how to reach it

Partition `cpu` is node cpu0, `gpu` is gpu0; `urgent`, on gpu0 too, takes its jobs' place: they are requeued.
"""

from __future__ import annotations

import getpass
import os
import platform
import shutil
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

PACKAGES = ("munge", "slurmctld", "slurmd", "slurm-client")
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")
COMMANDS = ("sbatch", "scancel", "scontrol", "squeue", "srun")
NODES = ("cpu0", "gpu0")
DEVICES = ("/dev/null", "/dev/zero")
"""Stand for GPUs: slurmd wants character devices, and nothing opens them."""

CONF = """\
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerParameters=sched_interval=1,batch_sched_delay=0,bf_interval=1
SlurmdParameters=config_overrides
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait=2
MinJobAge=600
GresTypes=gpu
NodeName=cpu0 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=8 RealMemory=32000
NodeName=gpu0 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=8 RealMemory=64000 Gres=gpu:{gpus}
PartitionName=cpu Nodes=cpu0 Default=YES MaxTime=INFINITE
PartitionName=gpu Nodes=gpu0 MaxTime=INFINITE PriorityTier=1
PartitionName=urgent Nodes=gpu0 MaxTime=INFINITE PriorityTier=2 PreemptMode=OFF
"""


def missing():
    """Why no cluster can be started here; empty when one can."""
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    lacking = [name for name in PROGRAMS if not shutil.which(name, path=path)]
    return f"no {', '.join(lacking)}: apt-get install {' '.join(PACKAGES)}" if lacking else ""


@contextmanager
def slurm(folder):
    """Run a cluster whose files lie in `folder`; yields the variables by which programs find it."""
    folder = Path(folder)
    for name in ("state", "bin", *NODES):
        (folder / name).mkdir(parents=True, exist_ok=True)
    conf = folder / "slurm.conf"
    found = {"host": platform.node().partition(".")[0], "user": getpass.getuser(), "folder": folder}
    conf.write_text(CONF.format(ports=free_ports(3), gpus=len(DEVICES), **found))
    gpus = [f"NodeName=gpu0 Name=gpu File={device}\n" for device in DEVICES]
    (folder / "gres.conf").write_text("".join(gpus))
    (folder / "munge.key").write_bytes(os.urandom(1024))
    (folder / "munge.key").chmod(0o600)
    folder.chmod(0o755)
    for program in COMMANDS:
        # inside a job the executor drops all variables of SLURM, this one too
        wrapper = folder / "bin" / program
        wrapper.write_text(f'#!/bin/sh\nSLURM_CONF={conf} exec {shutil.which(program)} "$@"\n')
        wrapper.chmod(0o755)
    variables = {"SLURM_CONF": str(conf), "PATH": f"{folder}/bin:{os.environ['PATH']}:/usr/sbin:/sbin"}
    environment = os.environ | variables
    munge = [f"--{name}={folder}/munge.{name.partition('-')[0]}" for name in ("socket", "pid-file", "log-file")]
    munge += [f"--key-file={folder}/munge.key", f"--seed-file={folder}/munge.seed"]
    with ExitStack() as daemons:

        def start(*command):
            # a daemon ends with this process, however that ends
            log = daemons.enter_context((folder / f"{command[0]}{command[-1][-4:]}.log").open("ab"))
            process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *command],
                env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
            daemons.callback(process.wait)
            daemons.callback(process.terminate)

        def answers(*command):
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
            return done.stdout if done.returncode == 0 else ""

        start("munged", "--foreground", "--force", *munge)
        until(lambda: answers("munge", "-n", "-S", f"{folder}/munge.socket"), folder)
        start("slurmctld", "-D")
        for node in NODES:
            start("slurmd", "-D", "-N", node)
        until(lambda: answers("sinfo", "-h", "-N", "-p", "cpu,gpu", "-o", "%t").split() == ["idle"] * 2, folder)
        daemons.callback(answers, "scancel", "--me")
        yield variables


def until(condition, folder, seconds=30):
    """Wait for `condition`."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            logs = {path.name: path.read_text(errors="replace")[-2000:] for path in folder.glob("*.log")}
            raise TimeoutError(f"SLURM does not come up: {logs}")
        time.sleep(0.1)


def free_ports(count):
    """Ports of this machine that nobody listens on."""
    with ExitStack() as sockets:
        found = [sockets.enter_context(socket.socket()) for _ in range(count)]
        for one in found:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in found]


if __name__ == "__main__":
    with slurm(Path(sys.argv[1]).absolute()) as variables:
        for name, value in variables.items():
            print(f"export {name}={value}", flush=True)
        time.sleep(1e9)
