/* `countersign serve`: the supervisor. It opens the listeners, starts every role as a process of
 * its own, hands over descriptors, restarts what dies and stops everything in order.
 *
 * Contract with the role programs (roles.def): descriptor 3 is the channel to the supervisor
 * (ipc/messages.def); argv[0] is the program's name and argv[1] the role as logs show it
 * ("gate/0"). */
#ifndef CS_ROLES_SERVE_H
#define CS_ROLES_SERVE_H

/* `serve --config FILE [--gates N]`; argv[0] is the command word. Returns the exit status:
 * 0 stopped in order, 1 failed, 2 usage. */
int cs_serve(int argc, char **argv);

#endif
