package union

func serveForTest() {}
