package enginetest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// A server is a process that serves until it is stopped.
type server struct {
	log   string
	cmd   *exec.Cmd
	ended chan struct{} // closed when it has
}

// serve starts one, which logs into a file.
func serve(log string, cmd *exec.Cmd) (*server, error) {
	f, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	s := &server{log: log, cmd: cmd, ended: make(chan struct{})}
	cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = f, f, endWithTest()
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = cmd.Wait() // how it ended does not matter
		close(s.ended)
	}()
	return s, nil
}

// await asks until the server answers.
func (s *server) await(ask func() error) error {
	for deadline := time.Now().Add(patience); ; {
		err := ask()
		if err == nil {
			return nil
		}
		select {
		case <-s.ended:
			return fmt.Errorf("has ended: %s", s.Said())
		case <-time.After(50 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("does not answer: %w: %s", err, s.Said())
		}
	}
}

// Said is the end of what the engine logged.
func (s *server) Said() string {
	b, err := os.ReadFile(s.log)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(lines[max(0, len(lines)-5):], "\n")
}

// stop asks it to end.
func (s *server) stop() error {
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-s.ended:
		return nil
	case <-time.After(patience):
	}
	err := errors.Join(fmt.Errorf("%s does not end", s.cmd.Path), s.cmd.Process.Kill())
	<-s.ended
	return err
}
