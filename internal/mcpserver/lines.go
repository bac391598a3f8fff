package mcpserver

import (
	"bufio"
	"bytes"
	"errors"
	"io"
)

// maxLine bounds one JSON-RPC message.
const maxLine = 4 << 20

// errLineTooLong stands for a line that was over maxLine and was skipped.
var errLineTooLong = errors.New("line too long")

// lineReader splits a stream into lines. A last line needs no newline; one that
// is too long is skipped to its end.
type lineReader struct{ r *bufio.Reader }

func newLineReader(r io.Reader) *lineReader { return &lineReader{bufio.NewReaderSize(r, 64<<10)} }

// next returns the next line that is not blank, errLineTooLong for one that was
// skipped, or the stream's error once all lines were returned.
func (l *lineReader) next() ([]byte, error) {
	for {
		line, err := l.line()
		if err == nil && len(line) == 0 {
			continue
		}
		return line, err
	}
}

func (l *lineReader) line() ([]byte, error) {
	var line []byte
	tooLong := false
	for {
		part, err := l.r.ReadSlice('\n')
		if !tooLong && len(line)+len(part) > maxLine {
			tooLong, line = true, nil
		}
		if !tooLong {
			line = append(line, part...)
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case tooLong: // an error of the stream comes again with the next line
			return nil, errLineTooLong
		}
		if line = bytes.TrimSpace(line); len(line) > 0 {
			return line, nil
		}
		return nil, err
	}
}
