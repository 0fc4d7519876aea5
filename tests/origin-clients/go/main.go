// Reads the map as Go programs around external-ip-proxy did: into a struct with its field names.
package main

import (
	"fmt"
	"log"
	"os"
	"strings"

	"gopkg.in/yaml.v2"
)

// document has the proxy's own configuration, which it published, and what it added at run time.
type document struct {
	ExternalIPs struct {
		ServiceIP string   `yaml:"service-ip"`
		IPs       []string `yaml:"ips"`
		IPRange   struct {
			From string `yaml:"from"`
			To   string `yaml:"to"`
		} `yaml:"ip-range"`
	} `yaml:"external-ips"`
	Cluster struct {
		Labels      map[string]string `yaml:"labels"`
		Ports       []int32           `yaml:"ports"`
		StatefulSet string            `yaml:"stateful-set"`
	} `yaml:"cluster"`
	Runtime struct {
		ServiceIP       string   `yaml:"service-ip"`
		ExternalMapping []string `yaml:"external-mapping"`
	} `yaml:"runtime-configuration"`
}

func main() {
	for _, file := range os.Args[1:] {
		text, err := os.ReadFile(file)
		if err != nil {
			log.Fatal(err)
		}
		var read document
		if err := yaml.Unmarshal(text, &read); err != nil {
			log.Fatalf("%s: %v", file, err)
		}
		fmt.Println("document", file)
		fmt.Println(strings.TrimSpace("service-ip " + read.Runtime.ServiceIP))
		for _, entry := range read.Runtime.ExternalMapping {
			addresses := strings.Split(entry, ":")
			if len(addresses) != 2 {
				log.Fatalf("not inside:outside: %s", entry)
			}
			fmt.Println(addresses[0], addresses[1])
		}
		for name, value := range read.Cluster.Labels {
			fmt.Println("label", name, value)
		}
		for _, port := range read.Cluster.Ports {
			fmt.Println("port", port)
		}
	}
}
