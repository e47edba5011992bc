/**
 * Lock directories that a VMM has left. VMware makes `<file>.lck/` with small files M12345.lck (members), D12345.lck and
 * E12345.lck in it, and removes them when it ends. A commit comes after the end of the mount, so nobody holds them, and
 * on the next host they would only say that the VM is in use.
 */
import type { Inode } from '../session/namespace-types.js'
import type { Namespace } from '../session/namespace.js'

const LOCK_FILE_BYTES_MAX = 4096
const LOCK_FILE = /^(?:[MDE]\d+\.lck|\.lck-.{1,100})$/

/** Whether a directory is a lock and nothing else: another file in it makes it somebody's directory. */
export function isStaleLock(namespace: Namespace, name: string, inode: Inode): boolean {
  if (inode.type !== 'directory' || !name.endsWith('.lck') || name === '.lck') return false
  const children = [...(inode.children ?? [])]
  return children.every(([child, id]) => {
    const file = namespace.get(id)
    return file?.type === 'file' && LOCK_FILE.test(child) && file.sizeBytes <= LOCK_FILE_BYTES_MAX
  })
}
