/**
 * VMDK descriptors: the text that names a virtual disk's extents (VMware, "Virtual Disk Format 5.0"). It is a file of its own
 * (split and flat disks), or lies within the first sectors of a monolithic sparse one.
 */

const SPARSE_MAGIC = 'KDMV'
const DESCRIPTOR_START = '# Disk DescriptorFile'
/** A descriptor in a monolithic sparse file begins in sector 1 and takes some 20 sectors. */
export const DESCRIPTOR_BYTES_MAX = 64 * 1024

export interface VmdkExtent {
  readonly access: string
  readonly sectors: number
  /** SPARSE, FLAT, ZERO, VMFS, ... */
  readonly kind: string
  readonly fileName: string
  /** where the extent begins in its file, in sectors */
  readonly offset: number
}

export interface VmdkDescriptor {
  /** monolithicSparse, twoGbMaxExtentSparse, monolithicFlat, twoGbMaxExtentFlat, fullDevice, ... */
  readonly createType: string
  /** of a disk that only holds differences */
  readonly parent: string | undefined
  readonly extents: readonly VmdkExtent[]
}

/** From the first bytes of a .vmdk; undefined when there is no descriptor in them. */
export function parseDescriptor(head: Buffer): VmdkDescriptor | undefined {
  const at = head.indexOf(DESCRIPTOR_START, 0, 'latin1')
  const isEmbedded = head.subarray(0, 4).toString('latin1') === SPARSE_MAGIC
  if (at < 0 || (at > 0 && !isEmbedded)) return undefined
  const [text = ''] = head.subarray(at).toString('utf8').split('\0')
  const value = (key: string): string | undefined =>
    new RegExp(`^\\s*${key}\\s*=\\s*"?([^"\\n]*?)"?\\s*$`, 'm').exec(text)?.[1]
  const parentId = value('parentCID')
  return {
    createType: value('createType') ?? '',
    parent: parentId === undefined || parentId === 'ffffffff' ? undefined : (value('parentFileNameHint') ?? ''),
    extents: [...text.matchAll(/^\s*(RW|RDONLY|NOACCESS)\s+(\d+)\s+([A-Z]+)(?:\s+"([^"]*)"(?:\s+(\d+))?)?/gm)].map(
      ([, access = '', sectors, kind = '', fileName = '', offset]) => ({
        access,
        sectors: Number(sectors),
        kind,
        fileName,
        offset: Number(offset ?? 0)
      })
    )
  }
}
