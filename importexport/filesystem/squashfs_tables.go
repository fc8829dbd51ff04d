package filesystem

// squashTables writes the tables behind the inodes. They follow each other without a gap, as the
// kernel checks their sizes by where the next one begins.
type squashTables struct {
	w   *squashWriter
	err error

	inodes, dirs, fragments, ids, xattrs uint64 // where they begin
}

// put writes what is next, and says where.
func (s *squashTables) put(b []byte) uint64 {
	at := s.w.at
	if s.err == nil {
		_, s.err = s.w.im.WriteAt(b, at)
	}
	s.w.at += int64(len(b))
	return uint64(at)
}

// meta writes metadata blocks of a table, and gives the list of their places.
func (s *squashTables) meta(content []byte) (places []byte) {
	m := metaWriter{compress: s.w.compress}
	m.write(content)
	m.finish()
	at := s.put(m.out)
	for _, start := range m.starts {
		places = le.AppendUint64(places, at+uint64(start))
	}
	return places
}

func (s *squashTables) fragmentTable() uint64 {
	if len(s.w.fragments) == 0 {
		return squashNoTable
	}
	var b []byte
	for _, f := range s.w.fragments {
		b = le.AppendUint64(b, uint64(f.start))
		b = le.AppendUint32(b, f.size)
		b = le.AppendUint32(b, 0)
	}
	return s.put(s.meta(b))
}

func (s *squashTables) idTable() uint64 {
	var b []byte
	for _, id := range s.w.idList {
		b = le.AppendUint32(b, id)
	}
	return s.put(s.meta(b))
}

func (s *squashTables) xattrTable() uint64 {
	x := &s.w.xattrs
	if len(x.known) == 0 {
		return squashNoTable
	}
	x.pairs.finish()
	pairs := s.put(x.pairs.out)
	places := s.meta(x.list)
	b := le.AppendUint64(nil, pairs)
	b = le.AppendUint32(b, uint32(len(x.known)))
	b = le.AppendUint32(b, 0)
	return s.put(append(b, places...))
}

// super is the superblock (struct squashfs_super_block).
func (w *squashWriter) super(s *squashTables) []byte {
	flags := uint16(0)
	if s.xattrs == squashNoTable {
		flags |= squashNoXattrs
	}
	b := le.AppendUint32(nil, squashMagic)
	b = le.AppendUint32(b, uint32(len(w.nodes)))
	b = le.AppendUint32(b, 0) // when it was made
	b = le.AppendUint32(b, squashBlock)
	b = le.AppendUint32(b, uint32(len(w.fragments)))
	b = le.AppendUint16(b, w.compressor)
	b = le.AppendUint16(b, squashBlockLog)
	b = le.AppendUint16(b, flags)
	b = le.AppendUint16(b, uint16(len(w.idList)))
	b = le.AppendUint16(b, 4) // version 4.0
	b = le.AppendUint16(b, 0)
	b = le.AppendUint64(b, w.refs[0])
	b = le.AppendUint64(b, uint64(w.at))
	for _, table := range []uint64{s.ids, s.xattrs, s.inodes, s.dirs, s.fragments, squashNoTable} {
		b = le.AppendUint64(b, table)
	}
	return b
}
