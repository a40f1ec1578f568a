/* Plays NVIDIA's libnvidia-ml.so.1 from a text file that a test writes, so that the real binding, nvidia-ml-py, runs
 * without a GPU. The file is read again with every call; support/nvml_stand_in.py writes it and says what its fields
 * mean. Signatures, codes and structures are those of nvml.h; only what the pool manager calls is here. */

#define _GNU_SOURCE
#include <limits.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MIB (1024ull * 1024ull)
#define MOST 16
#define TEXT 96

enum { SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7 };

typedef struct {
    unsigned long long total, free, used;
} nvmlMemory_t;
typedef struct {
    unsigned gpu, memory;
} nvmlUtilization_t;
typedef struct {
    unsigned pid;
    unsigned long long usedGpuMemory;
    unsigned gpuInstanceId, computeInstanceId;
} nvmlProcessInfo_t;

/* Figures below 0: the card does not have them. */
typedef struct {
    char uuid[TEXT], name[TEXT];
    int error, total_mib, used_mib, utilisation, temperature, power_mw, ecc_errors, throttle_bits, major, minor;
} Gpu;
typedef struct {
    int gpu, pid, used_mib, draws;
} Process;
typedef struct {
    char version[TEXT];
    int load, init_error, hangs, tells_processes, gpu_count, process_count;
    Gpu gpus[MOST];
    Process processes[MOST];
} World;

/* As in the real library, a handle is worth nothing once the driver was loaded anew. */
typedef struct {
    int index, load;
} Handle;
typedef Handle *nvmlDevice_t;

static char world_file[PATH_MAX];
static int initialised_in_load; /* 0: not initialised */
static Handle handles[MOST];

void nvml_stand_in_use(const char *path) { snprintf(world_file, sizeof world_file, "%s", path); }

static void read_world(World *world) {
    char line[512];
    const char *path = world_file[0] ? world_file : getenv("NVML_STAND_IN");
    FILE *file = path ? fopen(path, "r") : NULL;
    memset(world, 0, sizeof *world);
    if (!file) {
        fprintf(stderr, "the NVML stand-in has no file to read; set NVML_STAND_IN\n");
        abort();
    }
    while (fgets(line, sizeof line, file)) {
        Gpu *gpu = &world->gpus[world->gpu_count];
        Process *process = &world->processes[world->process_count];
        if (sscanf(line, "driver\t%95[^\t]\t%d\t%d\t%d\t%d", world->version, &world->load, &world->init_error,
                   &world->hangs, &world->tells_processes) == 5)
            continue;
        if (world->gpu_count < MOST &&
            sscanf(line, "gpu\t%95[^\t]\t%95[^\t]\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d", gpu->uuid, gpu->name,
                   &gpu->error, &gpu->total_mib, &gpu->used_mib, &gpu->utilisation, &gpu->temperature, &gpu->power_mw,
                   &gpu->ecc_errors, &gpu->throttle_bits, &gpu->major, &gpu->minor) == 12)
            world->gpu_count++;
        else if (world->process_count < MOST && sscanf(line, "process\t%d\t%d\t%d\t%d", &process->gpu, &process->pid,
                                                       &process->used_mib, &process->draws) == 4)
            world->process_count++;
    }
    fclose(file);
}

/* Every call begins here: it waits while the driver hangs, and fails where the library was not opened in its time. */
static int enter(World *world) {
    for (read_world(world); world->hangs; read_world(world))
        usleep(2000);
    return initialised_in_load == world->load ? SUCCESS : UNINITIALIZED;
}

static int enter_gpu(World *world, nvmlDevice_t device, Gpu **gpu) {
    int code = enter(world);
    if (code != SUCCESS)
        return code;
    if (!device || device->load != world->load || device->index >= world->gpu_count)
        return INVALID_ARGUMENT;
    *gpu = &world->gpus[device->index];
    return (*gpu)->error;
}

static int tell_figure(nvmlDevice_t device, size_t offset, unsigned *told) {
    World world;
    Gpu *gpu;
    int code = enter_gpu(&world, device, &gpu);
    int figure = code == SUCCESS ? *(int *)((char *)gpu + offset) : 0;
    if (code == SUCCESS && figure < 0)
        return NOT_SUPPORTED;
    *told = (unsigned)figure;
    return code;
}

#define FIGURE(field, told) tell_figure(device, offsetof(Gpu, field), told)

static int give_handle(World *world, int index, nvmlDevice_t *device) {
    handles[index].index = index;
    handles[index].load = world->load;
    *device = &handles[index];
    return world->gpus[index].error;
}

__attribute__((unused)) static int list_processes(nvmlDevice_t device, unsigned *count, nvmlProcessInfo_t *told, int draws) {
    World world;
    Gpu *gpu;
    unsigned room = *count, found = 0;
    int code = enter_gpu(&world, device, &gpu);
    if (code != SUCCESS)
        return code;
    if (!world.tells_processes)
        return NOT_SUPPORTED;
    for (int index = 0; index < world.process_count; index++) {
        Process *process = &world.processes[index];
        if (process->gpu != device->index || process->draws != draws)
            continue;
        if (found < room && told)
            told[found] = (nvmlProcessInfo_t){.pid = (unsigned)process->pid,
                                              .usedGpuMemory = process->used_mib < 0 ? ~0ull : process->used_mib * MIB};
        found++;
    }
    *count = found;
    return found > room ? INSUFFICIENT_SIZE : SUCCESS;
}

int nvmlInitWithFlags(unsigned flags) {
    World world;
    (void)flags;
    enter(&world);
    if (world.init_error)
        return world.init_error;
    initialised_in_load = world.load;
    return SUCCESS;
}

int nvmlShutdown(void) {
    World world;
    int code = enter(&world);
    initialised_in_load = 0;
    return code;
}

const char *nvmlErrorString(int code) {
    switch (code) {
    case 9:
        return "Driver Not Loaded";
    case 15:
        return "GPU is lost";
    case 18:
        return "Driver/library version mismatch";
    default:
        return "Unknown Error";
    }
}

int nvmlSystemGetDriverVersion(char *version, unsigned length) {
    World world;
    int code = enter(&world);
    snprintf(version, length, "%s", world.version);
    return code;
}

int nvmlDeviceGetCount_v2(unsigned *count) {
    World world;
    int code = enter(&world);
    *count = (unsigned)world.gpu_count;
    return code;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, nvmlDevice_t *device) {
    World world;
    int code = enter(&world);
    if (code != SUCCESS)
        return code;
    return index < (unsigned)world.gpu_count ? give_handle(&world, (int)index, device) : INVALID_ARGUMENT;
}

int nvmlDeviceGetHandleByUUID(const char *uuid, nvmlDevice_t *device) {
    World world;
    int code = enter(&world);
    for (int index = 0; code == SUCCESS && index < world.gpu_count; index++)
        if (strcmp(world.gpus[index].uuid, uuid) == 0)
            return give_handle(&world, index, device);
    return code == SUCCESS ? NOT_FOUND : code;
}

int nvmlDeviceGetUUID(nvmlDevice_t device, char *uuid, unsigned length) {
    World world;
    Gpu *gpu;
    int code = enter_gpu(&world, device, &gpu);
    if (code == SUCCESS)
        snprintf(uuid, length, "%s", gpu->uuid);
    return code;
}

int nvmlDeviceGetName(nvmlDevice_t device, char *name, unsigned length) {
    World world;
    Gpu *gpu;
    int code = enter_gpu(&world, device, &gpu);
    if (code == SUCCESS)
        snprintf(name, length, "%s", gpu->name);
    return code;
}

int nvmlDeviceGetCudaComputeCapability(nvmlDevice_t device, int *major, int *minor) {
    int code = FIGURE(major, (unsigned *)major);
    return code == SUCCESS ? FIGURE(minor, (unsigned *)minor) : code;
}

int nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *memory) {
    World world;
    Gpu *gpu;
    int code = enter_gpu(&world, device, &gpu);
    if (code == SUCCESS && gpu->total_mib < 0)
        return NOT_SUPPORTED;
    if (code == SUCCESS)
        *memory = (nvmlMemory_t){.total = gpu->total_mib * MIB,
                                 .free = (gpu->total_mib - gpu->used_mib) * MIB,
                                 .used = gpu->used_mib * MIB};
    return code;
}

#ifndef WITHOUT_PROCESS_LISTS /* as in the libraries of drivers before 510 */
int nvmlDeviceGetComputeRunningProcesses_v3(nvmlDevice_t device, unsigned *count, nvmlProcessInfo_t *told) {
    return list_processes(device, count, told, 0);
}

int nvmlDeviceGetGraphicsRunningProcesses_v3(nvmlDevice_t device, unsigned *count, nvmlProcessInfo_t *told) {
    return list_processes(device, count, told, 1);
}
#endif

int nvmlDeviceGetUtilizationRates(nvmlDevice_t device, nvmlUtilization_t *rates) {
    rates->memory = 0;
    return FIGURE(utilisation, &rates->gpu);
}

int nvmlDeviceGetTemperature(nvmlDevice_t device, int sensor, unsigned *degrees) {
    return sensor == 0 ? FIGURE(temperature, degrees) : INVALID_ARGUMENT;
}

int nvmlDeviceGetPowerUsage(nvmlDevice_t device, unsigned *milliwatts) { return FIGURE(power_mw, milliwatts); }

int nvmlDeviceGetTotalEccErrors(nvmlDevice_t device, int kind, int counter, unsigned long long *errors) {
    unsigned told = 0;
    int code = kind == 1 && counter == 0 ? FIGURE(ecc_errors, &told) : INVALID_ARGUMENT;
    *errors = told;
    return code;
}

/* The newer name, nvmlDeviceGetCurrentClocksEventReasons, is left out, as in the libraries of older drivers. */
int nvmlDeviceGetCurrentClocksThrottleReasons(nvmlDevice_t device, unsigned long long *reasons) {
    unsigned told = 0;
    int code = FIGURE(throttle_bits, &told);
    *reasons = told;
    return code;
}
