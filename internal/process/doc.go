// Package process runs a command together with everything it starts, and lets none of it
// outlive its end, nor the end of whoever runs it, even by kill -9.
//
// # How
//
// Linux's signal at a parent's death reaches neither grandchildren nor what was started
// by a thread that has gone, and a process group is left by whoever calls setsid. So a
// supervisor stands between: this very binary, started again (see Supervise), alone in a
// process group. It is the subreaper of what it starts: whoever loses its parent becomes
// its child, so that "no child is left" is the kernel's word that all are gone. From the
// one who runs it, it holds the end of a pipe. When the other end is closed, because the
// command is to stop or because a killed process has no open files, everybody gets
// SIGTERM, and after a grace SIGKILL, again and again until nobody is left.
//
//	Run ──► supervisor ──► start ══► the command ──► …
//	        (a pipe)       (limits, then exec)
//
// What the command leaves behind when it ends by itself is killed at once.
//
// # What cannot be caught
//
// A process that runs as another user (setuid, sudo) may not be killed by us: it is left
// behind, and nobody waits for it. If the supervisor itself is killed by SIGKILL, the
// command dies with it, and Run, or nobody if that has gone, too, kills the rest of its
// group; what has left the group by setsid then lives on. Work handed to a daemon (cron,
// at, systemd-run, docker) was never ours. Elsewhere than on Linux only the command's
// process group is killed.
package process
