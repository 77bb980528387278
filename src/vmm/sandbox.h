/*
 * sandbox.h - what the process of a VM in the background may still ask of the kernel.
 *
 * Two steps. Before anything is set up, while there is one thread: namespaces of its own, so that
 * there is no network and no foreign IPC. When everything is open and before the first guest
 * instruction: no new privileges, and a list of system calls for all threads; each vCPU's thread
 * then gives up what only the others need. The lists say why each call is there.
 */
#ifndef SOSIA_VMM_SANDBOX_H
#define SOSIA_VMM_SANDBOX_H

#include "base/error.h"
#include "base/types.h"

enum sandbox_role {
    SANDBOX_PROCESS, /* all threads that there are and will be */
    SANDBOX_VCPU,    /* the calling thread, on top */
};

/* Best effort: a host that does not allow it is no error. `network`: the VM needs the host's. */
void sandbox_namespaces(bool network);
/* From here on other calls fail with EPERM. `network`: remote disks are
 * connected. ERR_HOST. */
int sandbox_enter(enum sandbox_role role, bool network, struct error *e);

#endif
