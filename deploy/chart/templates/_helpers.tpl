{{- define "ipam-agent.name" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Those that clean the nodes are others than those that watch, which Helm then removes. */}}
{{- define "ipam-agent.daemonset" -}}
{{- if .Values.uninstall -}}
{{- printf "%s-uninstall" (include "ipam-agent.name" . | trunc 53 | trimSuffix "-") -}}
{{- else -}}
{{- include "ipam-agent.name" . -}}
{{- end -}}
{{- end -}}

{{- define "ipam-agent.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "ipam-agent.labels" -}}
{{ include "ipam-agent.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "ipam-agent.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* YAML 1.1, which Helm reads, takes an unquoted `off` for false. */}}
{{- define "ipam-agent.release" -}}
{{- ternary "off" .Values.release (kindIs "bool" .Values.release) -}}
{{- end -}}

{{/* Who is asked for containers: auto, off, or a socket, which must be mounted. */}}
{{- define "ipam-agent.cri" -}}
{{- $cri := dig "holders" "cri" "auto" .Values.config -}}
{{- if kindIs "bool" $cri -}}
{{- $cri = "off" -}}
{{- end -}}
{{- if hasPrefix "unix://" $cri -}}
{{- $mounted := false -}}
{{- range .Values.runtimeDirs -}}
{{- $mounted = or $mounted (hasPrefix (printf "unix://%s/" .) $cri) -}}
{{- end -}}
{{- if not $mounted -}}
{{- fail (printf "config.holders.cri: %s would not be there in the pod: name its directory, %s, in runtimeDirs" $cri (dir (trimPrefix "unix://" $cri))) -}}
{{- end -}}
{{- end -}}
{{- $cri -}}
{{- end -}}

{{/* The stores, each with the mode that `release` gives it; as YAML: { stores: […] }. */}}
{{- define "ipam-agent.stores" -}}
{{- $release := include "ipam-agent.release" . -}}
{{- $config := .Values.config -}}
{{- $dataPlane := dig "observe" "data_plane" true $config -}}
{{- $nobody := and (eq (include "ipam-agent.cri" .) "off") (not (dig "holders" "netns" true $config)) -}}
{{- $given := list (dict "kind" "host-local") -}}
{{- if kindIs "slice" .Values.config.stores -}}
{{- $given = .Values.config.stores -}}
{{- end -}}
{{- $leases := "/etc/ipam-agent/leases.yaml" -}}
{{- $named := false -}}
{{- $stores := list -}}
{{- $places := list -}}
{{- range $store := $given -}}
{{- $place := "" -}}
{{- $store = deepCopy $store -}}
{{- if eq $store.kind "host-local" -}}
{{- $mode := $store.reclaim | default (ternary "after-reboot" "observe" (eq $release "auto")) -}}
{{- if and (ne $release "auto") (ne $mode "observe") -}}
{{- fail (printf "config.stores: reclaim: %s needs release: auto, and release is %s" $mode $release) -}}
{{- end -}}
{{- if and (ne $mode "observe") (not $dataPlane) -}}
{{- fail (printf "config.observe.data_plane: false would have a pod that talks without ARP look silent: with release: %s either leave it true, or say reclaim: observe of each store" $release) -}}
{{- end -}}
{{- if and (ne $mode "observe") $nobody -}}
{{- fail (printf "config.holders: with cri: off and netns: false nobody is left to ask who holds an address: with release: %s either leave one of them, or say reclaim: observe of each store" $release) -}}
{{- end -}}
{{- if and (eq $release "off") $store.fence -}}
{{- fail "config.stores: fence: true writes to CNI's directories, and release: off has them read-only" -}}
{{- end -}}
{{- $_ := set $store "reclaim" $mode -}}
{{- $_ := set $store "dir" ($store.dir | default "/var/lib/cni/networks") -}}
{{- $place = $store.dir -}}
{{- else -}}
{{- $path := $store.path | default $leases -}}
{{- $place = $path -}}
{{- if and (eq $path $leases) $.Values.leaseFile -}}
{{- $named = true -}}
{{- else if not (or (hasPrefix "/var/lib/cni/" $path) (hasPrefix (print $.Values.stateDir "/") $path)) -}}
{{- fail (printf "config.stores: %s is in no directory of the nodes that the pods have: give what is in it as leaseFile" $path) -}}
{{- end -}}
{{- end -}}
{{- if has $place $places -}}
{{- fail (printf "config.stores: %s is there twice: say all of it in one entry" $place) -}}
{{- end -}}
{{- $places = append $places $place -}}
{{- $stores = append $stores $store -}}
{{- end -}}
{{- if and .Values.leaseFile (not $named) -}}
{{- $stores = append $stores (dict "kind" "file" "path" $leases) -}}
{{- end -}}
{{- dict "stores" $stores | toYaml -}}
{{- end -}}

{{/* The directories of host-local's that are in none of CNI's, as YAML: { networks: […] }. */}}
{{- define "ipam-agent.networks" -}}
{{- $networks := list -}}
{{- range (include "ipam-agent.stores" . | fromYaml).stores -}}
{{- if and (eq .kind "host-local") (not (hasPrefix "/var/lib/cni/" (print .dir "/"))) -}}
{{- $networks = append $networks .dir -}}
{{- end -}}
{{- end -}}
{{- dict "networks" $networks | toYaml -}}
{{- end -}}

{{/* A pod has one thing in one place; the server says so only of what is created. */}}
{{- define "ipam-agent.distinct" -}}
{{- $mounted := dict
  "/etc/ipam-agent" "the configuration"
  "/run/ipam-agent" "the agent's socket"
  "/sys/fs/bpf" "the BPF file system"
  "/var/lib/cni" "CNI's directory"
  "/etc/cni/net.d" "CNI's configuration (cniConfDir)"
  "/run/flannel" "flannel's directory" -}}
{{- $given := list (list "stateDir" .Values.stateDir) -}}
{{- range .Values.runtimeDirs -}}
{{- $given = append $given (list "runtimeDirs" .) -}}
{{- end -}}
{{- range (include "ipam-agent.networks" . | fromYaml).networks -}}
{{- $given = append $given (list "config.stores" .) -}}
{{- end -}}
{{- range $given -}}
{{- $key := first . -}}
{{- $path := last . -}}
{{- with get $mounted $path -}}
{{- fail (printf "%s: %s is in the pods already, for %s: name another directory, or take it out" $key $path .) -}}
{{- end -}}
{{- $_ := set $mounted $path $key -}}
{{- end -}}
{{- range $label, $_ := .Values.podLabels -}}
{{- $own := hasKey (include "ipam-agent.labels" $ | fromYaml) $label -}}
{{- if or $own (and $.Values.uninstall (eq $label "app.kubernetes.io/component")) -}}
{{- fail (printf "podLabels: %s is the chart's own, and the DaemonSet knows its pods by such: name another" $label) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The agent's configuration. */}}
{{- define "ipam-agent.config" -}}
{{- $config := deepCopy .Values.config -}}
{{- if and (eq (include "ipam-agent.release" .) "off") (dig "reclaim" "clean_caches" false $config) -}}
{{- fail "config.reclaim.clean_caches writes to CNI's directories, and release: off has them read-only" -}}
{{- end -}}
{{- $cri := include "ipam-agent.cri" . -}}
{{- if and (eq $cri "off") (dig "reclaim" "clean_caches" false $config) -}}
{{- fail "config.reclaim.clean_caches needs a container runtime, which alone knows containers by their ids: not with holders: { cri: off }" -}}
{{- end -}}
{{- if hasKey ($config.holders | default dict) "cri" -}}
{{- $_ := set $config.holders "cri" $cri -}}
{{- end -}}
{{- $_ := set $config "stores" (include "ipam-agent.stores" . | fromYaml).stores -}}
{{- $_ := set $config "state_dir" .Values.stateDir -}}
{{- toYaml $config -}}
{{- end -}}
