/**
 * Where a sparse file has data: SEEK_DATA and SEEK_HOLE through perl, which is part of every Debian, because Node has
 * no lseek. Only a saving: without an answer the holes are found by reading zeros.
 */
import { execFileSync } from 'node:child_process'

/** [start, end) in bytes, ascending */
export type Extent = readonly [start: number, end: number]

/** smaller files are read faster than a process is started */
const BYTES_MIN = 64 * 1024 * 1024
const OUTPUT_BYTES_MAX = 32 * 1024 * 1024

const SCRIPT = `
open(my $file, '<', $ARGV[0]) or exit 1;
my $end = -s $file;
for (my $at = 0; $at < $end; ) {
  my $data = sysseek($file, $at, 3);
  if (!defined $data) { exit($!{ENXIO} ? 0 : 1); }
  my $hole = sysseek($file, $data, 4) or exit 1;
  print $data + 0, ' ', $hole + 0, "\\n";
  $at = $hole;
}`

/** The extents of a file's data, or undefined when they are not worth asking for or cannot be told. */
export function dataExtents(path: string, sizeBytes: number, allocatedBytes: number): readonly Extent[] | undefined {
  if (sizeBytes < BYTES_MIN || allocatedBytes >= sizeBytes) return undefined
  try {
    const output = execFileSync('perl', ['-MErrno', '-e', SCRIPT, path], {
      maxBuffer: OUTPUT_BYTES_MAX,
      stdio: ['ignore', 'pipe', 'ignore']
    })
    return parse(output.toString('latin1'), sizeBytes)
  } catch {
    return undefined
  }
}

/** Whether [start, end) has no byte of data. */
export function isInHole(extents: readonly Extent[], start: number, end: number): boolean {
  let low = 0
  let high = extents.length
  while (low < high) {
    const middle = (low + high) >>> 1
    if ((extents[middle]?.[1] ?? 0) <= start) low = middle + 1
    else high = middle
  }
  const next = extents[low]
  return next === undefined || next[0] >= end
}

function parse(output: string, sizeBytes: number): Extent[] | undefined {
  const extents: Extent[] = []
  let previous = 0
  for (const line of output.split('\n')) {
    if (line === '') continue
    const [start, end] = line.split(' ').map(Number)
    if (start === undefined || end === undefined || !(start >= previous && end > start && end <= sizeBytes))
      return undefined
    extents.push([start, end])
    previous = end
  }
  return extents
}
