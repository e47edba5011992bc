/**
 * Words for a service manager that waits for them (systemd, Type=notify): ready, and what goes on. Through systemd-notify, because
 * Node has no datagram sockets of the local kind. Nothing happens where nobody waits.
 */
import { execFile } from 'node:child_process'

/** Resolves when it was told, or could not be: the mount does not depend on it. */
export function tellServiceManager(...words: readonly string[]): Promise<void> {
  if ((process.env['NOTIFY_SOCKET'] ?? '') === '') return Promise.resolve()
  return new Promise((resolve) => {
    execFile('systemd-notify', words, { cwd: '/' }, () => resolve())
  })
}
