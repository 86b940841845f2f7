#!/usr/bin/env bash
# What this machine's GPUs, their driver and torch say of themselves, and what is wrong with them:
#     scripts/gpu_diag.sh                     # torch of the python3 that is active
#     PYTHON=.venv/bin/python scripts/gpu_diag.sh
# It only looks. Exit code: 0 nothing is wrong, 1 something is; each line that begins with WRONG says what to do.
set -uo pipefail
case "${1:-}" in
-h | --help)
    sed -n '2,5s/^# \{0,1\}//p' "$0"
    exit 0
    ;;
"") ;;
*)
    echo "gpu_diag.sh: it takes no arguments; --help says what it does" >&2
    exit 1
    ;;
esac

python=${PYTHON:-python3}
root=${GPU_DIAG_ROOT:-} # another place of /dev and /proc, for its test
problems=0
warm=83 # degrees C at which most boards begin to slow down

title() { printf '\n%s\n' "$1"; }
fine() { printf '  ok     %s\n' "$1"; }
note() { printf '  note   %s\n' "$1"; }
wrong() {
    printf '  WRONG  %s\n' "$1"
    problems=$((problems + 1))
}
smi() { timeout 20 nvidia-smi "$@" 2>&1; }
# a value of nvidia-smi that is a number
number() { [[ $1 =~ ^[0-9]+([.][0-9]+)?$ ]]; }

machine() {
    title "machine"
    fine "$(uname -srm), $(getconf _NPROCESSORS_ONLN) processors"
    if [ -e "$root/.dockerenv" ] || [ -e "$root/run/.containerenv" ]; then
        note "this is a container: the driver is the host's, and devices are those that it was started with"
    fi
    if [ "${CUDA_VISIBLE_DEVICES-unset}" = "" ] || [ "${CUDA_VISIBLE_DEVICES-}" = "-1" ]; then
        wrong "CUDA_VISIBLE_DEVICES hides every GPU; unset it"
    elif [ -n "${CUDA_VISIBLE_DEVICES-}" ]; then
        note "CUDA_VISIBLE_DEVICES=$CUDA_VISIBLE_DEVICES: programs see these alone"
    fi
}

devices() {
    title "device nodes and kernel module"
    local node cards=0
    for node in "$root"/dev/nvidia[0-9]*; do
        [ -e "$node" ] && cards=$((cards + 1))
    done
    if [ "$cards" = 0 ]; then
        wrong "there is no /dev/nvidia0: no GPU, no driver, or a container without one (docker run --gpus all)"
    else
        fine "$cards of /dev/nvidia0 …"
    fi
    for node in nvidiactl nvidia-uvm; do
        if [ -e "$root/dev/$node" ]; then
            fine "/dev/$node"
        elif [ "$cards" != 0 ]; then
            wrong "/dev/$node is missing, so CUDA cannot start; run \`nvidia-modprobe -u -c=0\` as an administrator"
        fi
    done
    if [ -r "$root/proc/driver/nvidia/version" ]; then
        module=$(grep -m 1 -oE '[0-9]+\.[0-9]+(\.[0-9]+)?' "$root/proc/driver/nvidia/version")
        fine "kernel module $module"
    elif [ "$cards" != 0 ]; then
        wrong "the kernel module nvidia is not loaded; run \`modprobe nvidia\`, or install the driver anew"
    fi
}

driver() {
    title "driver (NVML)"
    if ! command -v nvidia-smi >/dev/null; then
        wrong "there is no nvidia-smi on the PATH: install the driver of the GPU (or start the container with --gpus all)"
        return 1
    fi
    local said
    said=$(smi --query-gpu=driver_version --format=csv,noheader)
    case $? in
    0) ;;
    124) wrong "nvidia-smi does not answer within 20 s: the GPU hangs; reset it or restart the machine"; return 1 ;;
    *)
        case $said in
        *mismatch*)
            wrong "the driver's library and its kernel module differ (${module:-?} is loaded): restart the machine" ;;
        *"couldn't communicate"* | *"not loaded"*)
            wrong "nvidia-smi reaches no driver: load it (modprobe nvidia), or install it for this kernel" ;;
        *"No devices"*) wrong "the driver finds no GPU: see dmesg, and whether the board is seated (lspci)" ;;
        *) wrong "nvidia-smi failed: ${said%%$'\n'*}" ;;
        esac
        return 1
        ;;
    esac
    version=${said%%$'\n'*}
    if [ -n "${module:-}" ] && [ "$module" != "$version" ]; then
        wrong "the library is $version and the kernel module $module: restart the machine"
    else
        fine "driver $version"
    fi
    supported=$(smi | grep -m 1 -oE 'CUDA Version: *[0-9]+\.[0-9]+' | grep -oE '[0-9]+\.[0-9]+$')
    if [ -n "$supported" ]; then fine "it runs CUDA up to $supported"; fi
}

boards() {
    title "GPUs"
    local line index name total used heat watts limit persistence ecc
    while IFS=',' read -r index name total used heat watts limit persistence ecc; do
        index=${index// /} heat=${heat// /} ecc=${ecc// /} persistence=${persistence// /}
        fine "GPU $index:$name, ${used# } of ${total# } MiB used, $heat C,${watts} of${limit} W"
        if [ "$persistence" = Disabled ]; then
            note "GPU $index: persistence mode is off, so the first call after a pause takes seconds; nvidia-smi -pm 1"
        fi
        if number "$ecc" && [ "$ecc" != 0 ]; then
            wrong "GPU $index: $ecc uncorrected ECC errors since the start; restart the machine, and see nvidia-smi -q -d ECC"
        fi
        if number "$heat" && [ "${heat%%.*}" -ge "$warm" ]; then
            wrong "GPU $index: $heat C; it slows down from about $warm C: look at fans and air"
        fi
    done < <(smi --query-gpu=index,name,memory.total,memory.used,temperature.gpu,power.draw,power.limit,persistence_mode,ecc.errors.uncorrected.volatile.total --format=csv,noheader,nounits)
    slowed
    others
}

slowed() {
    local reason line
    for reason in hw_slowdown hw_thermal_slowdown hw_power_brake_slowdown sw_thermal_slowdown; do
        while IFS=',' read -r line active; do
            if [ "${active// /}" = Active ]; then
                wrong "GPU ${line// /}: it is slowed down ($reason): look at power and cooling"
            fi
        done < <(smi --query-gpu=index,clocks_throttle_reasons."$reason" --format=csv,noheader)
    done
    if line=$(dmesg 2>/dev/null | grep 'NVRM: Xid' | tail -n 3) && [ -n "$line" ]; then
        wrong "the kernel's log has errors of the GPU (Xid); the latest: ${line//$'\n'/; }"
    fi
}

others() {
    local pid memory name
    while IFS=',' read -r pid memory name; do
        if number "${pid// /}"; then note "process ${pid// /} (${name# }) holds${memory} MiB of GPU memory"; fi
    done < <(smi --query-compute-apps=pid,used_memory,process_name --format=csv,noheader,nounits)
}

torch_state() {
    title "torch ($python)"
    local told
    if ! told=$("$python" - 2>&1 <<'PYTHON'
import torch

print("version", torch.__version__)
print("built", torch.version.cuda or "without CUDA")
if torch.version.cuda:
    print("available", torch.cuda.is_available())
    if torch.cuda.is_available():
        known = torch.cuda.get_arch_list()
        for each in range(torch.cuda.device_count()):
            major, minor = torch.cuda.get_device_capability(each)
            print("capability", f"{major}{minor}", f"sm_{major}{minor}" in known or f"sm_{major}0" in known)
        one = torch.ones(256, 256, device="cuda")
        print("computes", float((one @ one).sum()) == 256.0**3)
PYTHON
    ); then
        wrong "torch does not run: $(tail -n 1 <<<"$told"); set PYTHON to the Python of the worker"
        return
    fi
    local word rest
    while read -r word rest; do
        case "$word $rest" in
        version*) fine "torch $rest" ;;
        "built without CUDA") wrong "this torch is built without CUDA: install the one for GPUs (pip install torch)" ;;
        built*)
            fine "built for CUDA $rest"
            if [ -n "${supported:-}" ] && newer "$rest" "$supported"; then
                wrong "torch needs CUDA $rest and the driver runs $supported: install a newer driver"
            fi ;;
        "available True") fine "torch sees the GPU" ;;
        "available False") wrong "torch sees no GPU; what is wrong above is the reason, or the driver is too old" ;;
        capability*True) fine "its kernels fit the GPU (sm_${rest%% *})" ;;
        capability*) wrong "this torch has no kernels for sm_${rest%% *}: install a version that has" ;;
        "computes True") fine "a product of matrices is right" ;;
        computes*) wrong "a product of matrices came out wrong: the GPU is defective" ;;
        esac
    done <<<"$told"
}

# whether version $1 is newer than $2, as CUDA counts them: drivers run every minor version of their major one
newer() { [ "${1%%.*}" -gt "${2%%.*}" ]; }

machine
devices
if driver; then boards; fi
torch_state
if [ "$problems" = 0 ]; then
    printf '\nnothing is wrong\n'
else
    printf '\n%s wrong\n' "$problems"
    exit 1
fi
