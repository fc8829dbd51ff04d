// Command serve runs the image server of package imageserver until it is
// interrupted: alpine, made from busybox, and with -debian also debian:bookworm,
// made by mmdebstrap. It prints its URL on a line of its own when it is ready.
//
//	$ go run ./importexport/imageserver/serve &
//	http://127.0.0.1:40089
//	$ PLASH_LXC_SERVER=http://127.0.0.1:40089 plash build --image alpine --run 'touch /file'
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"

	"github.com/ihucos/plash/importexport/imageserver"
	"golang.org/x/sys/unix"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "address to listen at")
	debian := flag.Bool("debian", false, "serve debian:bookworm too")
	cache := flag.String("cache", "", "directory for the Debian image")
	flag.Parse()
	if err := serve(*listen, *debian, *cache); err != nil {
		fmt.Fprintln(os.Stderr, "imageserver:", err)
		os.Exit(1)
	}
}

func serve(listen string, debian bool, cache string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer stop()
	image, err := imageserver.BusyboxImage()
	if err != nil {
		return err
	}
	images := []imageserver.Image{image}
	if debian {
		if image, err = imageserver.DebianImage(cache); err != nil {
			return err
		}
		images = append(images, image)
	}
	s, err := imageserver.Listen(listen, images...)
	if err != nil {
		return err
	}
	fmt.Println(s.URL())
	<-ctx.Done()
	return s.Close()
}
