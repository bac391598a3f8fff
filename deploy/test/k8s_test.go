package deploytest

import (
	"encoding/base64"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

const k8sDir = "../k8s"

// cluster is what kubectl apply -k would send.
type cluster struct {
	deployment appsv1.Deployment
	job        batchv1.Job
	service    corev1.Service
	config     corev1.ConfigMap
	budget     policyv1.PodDisruptionBudget
	network    networkingv1.NetworkPolicy
}

func (c *cluster) kinds() map[string]any {
	return map[string]any{
		"Deployment": &c.deployment, "Job": &c.job, "Service": &c.service, "ConfigMap": &c.config,
		"PodDisruptionBudget": &c.budget, "NetworkPolicy": &c.network,
	}
}

// kube builds the kustomization and decodes every document of it strictly: an
// unknown or misplaced field fails, as does a second document of a kind.
func kube(t *testing.T) *cluster {
	t.Helper()
	built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), k8sDir)
	check(t, err)
	var c cluster
	left := c.kinds()
	for _, r := range built.Resources() {
		raw, err := r.AsYAML()
		check(t, err)
		into, ok := left[r.GetKind()]
		if !ok {
			t.Fatalf("unexpected %s", r.CurId())
		}
		delete(left, r.GetKind())
		if err := yaml.UnmarshalStrict(raw, into); err != nil {
			t.Errorf("%s: %v", r.CurId(), err)
		}
	}
	if len(left) > 0 {
		t.Fatalf("no %v", slices.Collect(maps.Keys(left)))
	}
	return &c
}

// pods returns the two templates that run the broker's image.
func (c *cluster) pods() map[string]corev1.PodTemplateSpec {
	return map[string]corev1.PodTemplateSpec{"Deployment": c.deployment.Spec.Template, "Job": c.job.Spec.Template}
}

// Every file is a resource of the kustomization, decodes as it stands, and names no namespace.
func TestKubeFiles(t *testing.T) {
	files, err := filepath.Glob(k8sDir + "/*.yaml")
	check(t, err)
	list := read(t, k8sDir+"/kustomization.yaml")
	for _, path := range files {
		name := filepath.Base(path)
		if name == "kustomization.yaml" || name == "secret.example.yaml" {
			continue
		}
		if !strings.Contains(list, "  - "+name+"\n") {
			t.Errorf("%s is not in the kustomization", name)
		}
		var head struct {
			metav1.TypeMeta   `json:",inline"`
			metav1.ObjectMeta `json:"metadata"`
		}
		raw := []byte(read(t, path))
		check(t, yaml.Unmarshal(raw, &head))
		into := new(cluster).kinds()[head.Kind]
		if into == nil || head.Namespace != "" {
			t.Fatalf("%s: %s in namespace %q", name, head.Kind, head.Namespace)
		}
		if err := yaml.UnmarshalStrict(raw, into); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestKubeAPIVersions(t *testing.T) {
	c := kube(t)
	for kind, pair := range map[string][2]string{
		"Deployment": {c.deployment.APIVersion, appsv1.SchemeGroupVersion.String()}, "Job": {c.job.APIVersion, batchv1.SchemeGroupVersion.String()},
		"Service": {c.service.APIVersion, "v1"}, "ConfigMap": {c.config.APIVersion, "v1"},
		"PodDisruptionBudget": {c.budget.APIVersion, policyv1.SchemeGroupVersion.String()}, "NetworkPolicy": {c.network.APIVersion, networkingv1.SchemeGroupVersion.String()},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s is %s, want %s", kind, pair[0], pair[1])
		}
	}
}

// Brokers are found by everything that selects them; the Job is not taken for one.
func TestKubeSelectors(t *testing.T) {
	c := kube(t)
	broker, schema := c.deployment.Spec.Template.Labels, c.job.Spec.Template.Labels
	covers := func(selector, labels map[string]string) bool {
		for k, v := range selector {
			if labels[k] != v {
				return false
			}
		}
		return len(selector) > 0
	}
	selectors := map[string]map[string]string{
		"Deployment": c.deployment.Spec.Selector.MatchLabels, "Service": c.service.Spec.Selector, "PodDisruptionBudget": c.budget.Spec.Selector.MatchLabels,
	}
	for i, s := range c.deployment.Spec.Template.Spec.TopologySpreadConstraints {
		selectors["spread "+strconv.Itoa(i)] = s.LabelSelector.MatchLabels
	}
	if len(selectors) != 5 {
		t.Errorf("%d selectors", len(selectors))
	}
	for who, selector := range selectors {
		if !covers(selector, broker) || covers(selector, schema) {
			t.Errorf("%s selects %v; brokers are %v, the Job %v", who, selector, broker, schema)
		}
	}
	if policy := c.network.Spec.PodSelector.MatchLabels; !covers(policy, broker) || !covers(policy, schema) {
		t.Errorf("NetworkPolicy selects %v", policy)
	}
}

// Brokers are replaced one at a time and drained.
func TestKubeRollout(t *testing.T) {
	c := kube(t)
	d := c.deployment.Spec
	if u := d.Strategy.RollingUpdate; *d.Replicas != 3 || u == nil || u.MaxUnavailable.IntValue() != 0 || u.MaxSurge.IntValue() != 1 || c.budget.Spec.MaxUnavailable.IntValue() != 1 {
		t.Errorf("replicas %d, rolling update %+v, budget %+v", *d.Replicas, u, c.budget.Spec)
	}
	pod := d.Template.Spec
	pre := pod.Containers[0].Lifecycle.PreStop.Sleep.Seconds
	if grace := time.Duration(*pod.TerminationGracePeriodSeconds-pre) * time.Second; pre <= 0 || grace <= stopWithin {
		t.Errorf("%s remain of the grace period after %d s of preStop", grace, pre)
	}
}

func TestKubePorts(t *testing.T) {
	c := kube(t)
	port := c.deployment.Spec.Template.Spec.Containers[0].Ports[0]
	if strconv.Itoa(int(port.ContainerPort)) != dockerfile(t).port {
		t.Errorf("port %d", port.ContainerPort)
	}
	if got := c.service.Spec.Ports[0].TargetPort.String(); got != port.Name {
		t.Errorf("Service points at %s", got)
	}
	if got := c.network.Spec.Ingress[0].Ports[0].Port.String(); got != port.Name {
		t.Errorf("NetworkPolicy opens %s", got)
	}
	if a := c.service.Spec.SessionAffinity; a != "" && a != corev1.ServiceAffinityNone {
		t.Errorf("affinity %s: any broker serves any peer", a)
	}
}

func TestKubeProbes(t *testing.T) {
	b := kube(t).deployment.Spec.Template.Spec.Containers[0]
	for _, p := range []struct {
		name, path string
		probe      *corev1.Probe
	}{{"startup", "/health", b.StartupProbe}, {"liveness", "/health", b.LivenessProbe}, {"readiness", "/health/ready", b.ReadinessProbe}} {
		if p.probe == nil || p.probe.HTTPGet == nil || p.probe.HTTPGet.Path != p.path || p.probe.HTTPGet.Port.String() != b.Ports[0].Name {
			t.Errorf("%s: %+v", p.name, p.probe)
			continue
		}
		probed(t, p.name, p.probe.HTTPGet.Path)
	}
}

// Both pods run as the image's user, with nothing else.
func TestKubeRights(t *testing.T) {
	for kind, pod := range kube(t).pods() {
		s, k := pod.Spec.SecurityContext, pod.Spec.Containers[0]
		if s == nil || !*s.RunAsNonRoot || fmt.Sprintf("%d:%d", *s.RunAsUser, *s.RunAsGroup) != dockerfile(t).user || s.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
			t.Errorf("%s: %+v", kind, s)
		}
		h := k.SecurityContext
		if h == nil || *h.AllowPrivilegeEscalation || !*h.ReadOnlyRootFilesystem || !slices.Contains(h.Capabilities.Drop, "ALL") || len(h.Capabilities.Add) > 0 {
			t.Errorf("%s: %+v", kind, h)
		}
		if pod.Spec.AutomountServiceAccountToken == nil || *pod.Spec.AutomountServiceAccountToken || len(pod.Spec.Containers) != 1 {
			t.Errorf("%s mounts a token of the API, or runs more than the broker", kind)
		}
		if k.Resources.Requests.Memory().IsZero() || k.Resources.Requests.Cpu().IsZero() || k.Resources.Limits.Memory().IsZero() {
			t.Errorf("%s: resources %+v", kind, k.Resources)
		}
	}
}

// What is set is read, and what is read is there.
func TestKubeSettings(t *testing.T) {
	c := kube(t)
	knownEnv(t, "broker.env", slices.Collect(maps.Keys(c.config.Data))...)
	from := c.deployment.Spec.Template.Spec.Containers[0].EnvFrom
	if len(from) != 1 || from[0].ConfigMapRef.Name != c.config.Name || !strings.HasPrefix(c.config.Name, "claudemesh-broker-") {
		t.Errorf("settings come from %+v, not %s", from, c.config.Name)
	}
	keys := secretKeys(t)
	for kind, pod := range c.pods() {
		box := pod.Spec.Containers[0]
		knownCommand(t, kind, box.Args...)
		env := map[string]string{}
		for _, e := range box.Env {
			knownEnv(t, kind, e.Name)
			if path, file := env[e.Name], strings.HasSuffix(e.Name, "_FILE"); file && path == "" {
				key, ok := strings.CutPrefix(e.Value, box.VolumeMounts[0].MountPath+"/")
				if !ok || !slices.Contains(keys, key) || !mounted(pod.Spec.Volumes[0].Secret, key) {
					t.Errorf("%s: %s=%s is not mounted", kind, e.Name, e.Value)
				}
			}
			env[e.Name] = e.Value
			if e.ValueFrom != nil && e.ValueFrom.FieldRef != nil {
				env[e.Name] = "field " + e.ValueFrom.FieldRef.FieldPath
			}
		}
		if v, ok := env["CLAUDEMESH_BROKER_DB"]; !ok || v != "" || env["CLAUDEMESH_BROKER_DB_FILE"] == "" {
			t.Errorf("%s: %v", kind, env)
		}
		if kind == "Deployment" && env["CLAUDEMESH_BROKER_NODE"] != "field metadata.name" {
			t.Errorf("nodes are named %q", env["CLAUDEMESH_BROKER_NODE"])
		}
		v := pod.Spec.Volumes[0]
		if v.Secret == nil || v.Secret.SecretName != "claudemesh-broker" || *v.Secret.DefaultMode != 0o440 || v.Name != box.VolumeMounts[0].Name || !box.VolumeMounts[0].ReadOnly {
			t.Errorf("%s: volume %+v", kind, v)
		}
	}
}

func mounted(s *corev1.SecretVolumeSource, key string) bool {
	return len(s.Items) == 0 || slices.ContainsFunc(s.Items, func(i corev1.KeyToPath) bool { return i.Key == key && i.Path == key })
}

// secretKeys returns the keys of the example, which is refused until it is filled in.
func secretKeys(t *testing.T) []string {
	t.Helper()
	raw := read(t, k8sDir+"/secret.example.yaml")
	var s corev1.Secret
	if err := yaml.UnmarshalStrict([]byte(raw), &s); err == nil {
		t.Error("the example can be applied as it stands")
	}
	for _, key := range []string{"database-url", "admin-token"} { // each alone is refused too
		one := regexp.MustCompile(`(?m)^  `+key+`: <.*>$`).ReplaceAllString(raw, "  "+key+": "+base64.StdEncoding.EncodeToString([]byte("x")))
		if err := yaml.UnmarshalStrict([]byte(one), &s); one == raw || err == nil {
			t.Errorf("with %s alone the example can be applied", key)
		}
	}
	filled := regexp.MustCompile(`: <.*>`).ReplaceAllString(raw, ": eA==")
	s = corev1.Secret{}
	check(t, yaml.UnmarshalStrict([]byte(filled), &s))
	keys := slices.Sorted(maps.Keys(s.Data))
	for _, key := range keys {
		if !strings.Contains(raw, "--from-file="+key+"="+key) {
			t.Errorf("no command sets %s", key)
		}
	}
	return keys
}

// The variables of the settings file are all there is in it.
func TestKubeSettingsFile(t *testing.T) {
	if _, err := os.Stat(k8sDir + "/broker.env"); err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(strings.TrimSpace(read(t, k8sDir+"/broker.env")), "\n") {
		if !strings.HasPrefix(line, "#") && !strings.HasPrefix(line, "CLAUDEMESH_BROKER_") {
			t.Errorf("%q", line)
		}
	}
}
