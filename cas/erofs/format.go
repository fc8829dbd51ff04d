package erofs

import (
	"encoding/binary"
	"hash/crc32"
)

// On-disk constants, from fs/erofs/erofs_fs.h of Linux.
const (
	superOffset = 1024 // of the superblock, in bytes
	superSize   = 128
	superMagic  = 0xE0F5E1E2
	// Where in the superblock, in the field uuid, our checksums lie.
	bodySumOffset  = 48
	superSumOffset = 56
	blockBits      = 9
	slotBits       = 5 // an inode number counts 32 bytes
	slotSize       = 1 << slotBits
	inodeSize      = 64 // of an extended inode
	deviceSize     = 128
	direntSize     = 12
	chunkIdxSize   = 8
	xattrHdrSize   = 12
	nullBlock      = ^uint32(0) // start block of a chunk that is a hole

	featIncompatChunked       = 0x4
	featIncompatDevTable      = 0x8
	knownIncompat             = featIncompatChunked | featIncompatDevTable
	layoutPlain               = 0
	layoutInline              = 2
	layoutChunk               = 4
	inodeExtended             = 1
	chunkFormatIndexes        = 0x20
	chunkFormatBitsMask       = 0x1f
	maxChunkBits              = blockBits + chunkFormatBitsMask
	firstDeviceSlot           = (superOffset + superSize) / deviceSize
	checksummedBody           = superOffset + BlockSize // what our own checksum covers begins here
	maxDevices                = 0xffff - 16
	maxBlocks                 = 1 << 32
	maxXattrBody              = xattrHdrSize + 4*(0xffff-1)
	maxSymlink                = 4095    // PATH_MAX of Linux, less the NUL
	maxFile                   = 1 << 62 // bytes; keeps offsets of chunks within 63 bits
	formatName                = "plash-index-1"
	flagWhiteouts        byte = 1 << 0
	flagImpliedRoot      byte = 1 << 1
	flagNoXattrs         byte = 1 << 2 // without it, there may be some
	flagNoACLs           byte = 1 << 3
)

// Types of directory entries, as the kernel's FT_ constants.
const (
	ftRegular = 1 + iota
	ftDir
	ftChar
	ftBlock
	ftFifo
	ftSocket
	ftSymlink
)

// Name prefixes of extended attributes are stored as a number.
var xattrPrefixes = [...]struct {
	index  byte
	prefix string
}{
	// The two ACLs first: they have no suffix.
	{aclAccessIndex, "system.posix_acl_access"},
	{aclDefaultIndex, "system.posix_acl_default"},
	{1, "user."},
	{4, "trusted."},
	{6, "security."},
}

// Numbers of the prefixes of access control lists.
const (
	aclAccessIndex  = 2
	aclDefaultIndex = 3
)

// impliedIndex is a prefix number that Linux does not know and therefore does
// not show. It marks a directory that no tar entry described.
const impliedIndex = 64

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	le         = binary.LittleEndian
)

// superblock is what of the superblock varies between our images. Its
// fields have the names of struct erofs_super_block.
type superblock struct {
	rootNID      uint16
	inos         uint64
	blocks       uint32
	metaBlkAddr  uint32
	extraDevices uint16

	// These are kept in the uuid field.
	bodySum uint32 // CRC-32C of all bytes from checksummedBody on
	flags   byte
}

// marshal returns the superblock and what follows it up to the end of its block,
// rest, under a checksum of our own. EROFS' optional one (EROFS_FEATURE_COMPAT_SB_CHKSUM)
// is not used: fsck.erofs 1.8 crashes on it where blocks are smaller than 1 KiB.
func (sb *superblock) marshal(rest []byte) []byte {
	b := make([]byte, BlockSize)
	le.PutUint32(b[0:], superMagic)
	b[12] = blockBits
	le.PutUint16(b[14:], sb.rootNID)
	le.PutUint64(b[16:], sb.inos)
	le.PutUint32(b[36:], sb.blocks)
	le.PutUint32(b[40:], sb.metaBlkAddr)
	le.PutUint32(b[bodySumOffset:], sb.bodySum)
	b[52] = sb.flags
	copy(b[64:80], formatName)
	incompat := uint32(featIncompatChunked)
	if sb.extraDevices > 0 {
		incompat |= featIncompatDevTable
		le.PutUint16(b[88:], firstDeviceSlot)
	}
	le.PutUint32(b[80:], incompat)
	le.PutUint16(b[86:], sb.extraDevices)
	copy(b[superSize:], rest)
	le.PutUint32(b[superSumOffset:], superChecksum(b))
	return b
}

// superChecksum is the CRC-32C of the superblock's block, with zeros in the place of
// the checksum itself.
func superChecksum(block []byte) uint32 {
	var zero [4]byte
	sum := crc32.Update(0, castagnoli, block[:superSumOffset])
	sum = crc32.Update(sum, castagnoli, zero[:])
	return crc32.Update(sum, castagnoli, block[superSumOffset+4:])
}

// encodeDev packs a device number as new_encode_dev of Linux.
func encodeDev(major, minor uint32) uint32 {
	return minor&0xff | major<<8 | (minor&^0xff)<<12
}

// decodeDev is the inverse of encodeDev.
func decodeDev(d uint32) (major, minor uint32) {
	return (d & 0xfff00) >> 8, d&0xff | (d>>12)&0xfff00
}

func roundUp(n, to int64) int64 { return (n + to - 1) / to * to }

func crcOf(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }
