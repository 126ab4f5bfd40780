// A program of somebody else's making, as far as the library goes: drives a VM by DigitalOcean's
// go-qemu over the control socket that is its argument, and prints a line for each thing it saw.
//
// SPDX-License-Identifier: GPL-2.0-or-later
package main

import (
	"fmt"
	"os"
	"time"

	"github.com/digitalocean/go-qemu/qemu"
	"github.com/digitalocean/go-qemu/qmp"
)

const patience = 30 * time.Second

type client struct {
	domain *qemu.Domain
	events chan qmp.Event
}

func must(what string, err error) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", what, err)
		os.Exit(1)
	}
}

// Runs a command and waits for the event that it causes.
func (c *client) expect(event string, what string, run func() error) {
	result := make(chan error, 1)
	late := time.After(patience)

	go func() { result <- run() }()
	for {
		select {
		case got, open := <-c.events:
			if open && got.Event != event {
				continue
			}
			if !open {
				must(what, fmt.Errorf("no event %s before the end", event))
			}
			must(what, <-result)
			fmt.Printf("event %s\n", event)
			return
		case <-late:
			must(what, fmt.Errorf("no event %s", event))
		}
	}
}

func (c *client) command(name string) func() error {
	return func() error {
		_, err := c.domain.Run(qmp.Command{Execute: name})
		return err
	}
}

func (c *client) status() {
	status, err := c.domain.Status()
	must("status", err)
	fmt.Printf("status %s\n", status)
}

// What the library knows how to read.
func (c *client) look() {
	version, err := c.domain.Version()
	must("version", err)
	name, err := c.domain.PackageVersion()
	must("package version", err)
	fmt.Printf("version %s of %s\n", version, name)

	disk, err := c.domain.BlockDevice("d0")
	must("disk", err)
	fmt.Printf("disk %s of %d bytes, read only %t\n", disk.Inserted.Driver,
		disk.Inserted.Image.VirtualSize, disk.Inserted.ReadOnly)
	stats, err := c.domain.BlockStats()
	must("statistics", err)
	fmt.Printf("statistics of %s\n", stats[0].Device)
	jobs, err := c.domain.BlockJobs()
	must("jobs", err)
	fmt.Printf("jobs %d\n", len(jobs))

	devices, err := c.domain.PCIDevices()
	must("PCI devices", err)
	for _, device := range devices {
		if device.QdevID == "d0" {
			fmt.Printf("PCI device %04x:%04x\n", device.ID.Vendor, device.ID.Device)
		}
	}
	for _, name := range []string{"query-block", "no-such-command"} {
		supported, err := c.domain.Supported(name)
		must("commands", err)
		fmt.Printf("supported %s %t\n", name, supported)
	}
	_, err = c.domain.Run(qmp.Command{Execute: "no-such-command"})
	fmt.Printf("refused: %v\n", err)
}

func main() {
	monitor, err := qmp.NewSocketMonitor("unix", os.Args[1], patience)
	must("socket", err)
	must("negotiation", monitor.Connect())
	domain, err := qemu.NewDomain(monitor, "vm")
	must("domain", err)
	events, _, err := domain.Events()
	must("events", err)
	c := client{domain, events}

	c.look()
	c.status()
	c.expect("STOP", "stop", c.command("stop"))
	c.status()
	c.expect("RESUME", "cont", c.command("cont"))
	c.status()
	c.expect("RESET", "system_reset", domain.SystemReset)
	c.expect("POWERDOWN", "system_powerdown", domain.SystemPowerdown)
	c.expect("SHUTDOWN", "quit", c.command("quit"))
}
