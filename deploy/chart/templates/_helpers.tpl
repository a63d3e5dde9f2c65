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

{{/* The stores, each with the mode that `release` gives it; as YAML: { stores: […] }. */}}
{{- define "ipam-agent.stores" -}}
{{- $release := include "ipam-agent.release" . -}}
{{- $stores := list -}}
{{- range $store := .Values.config.stores | default (list (dict "kind" "host-local")) -}}
{{- $store = deepCopy $store -}}
{{- if eq $store.kind "host-local" -}}
{{- $mode := $store.reclaim | default (ternary "after-reboot" "observe" (eq $release "auto")) -}}
{{- if and (ne $release "auto") (ne $mode "observe") -}}
{{- fail (printf "config.stores: reclaim: %s needs release: auto, and release is %s" $mode $release) -}}
{{- end -}}
{{- if and (eq $release "off") $store.fence -}}
{{- fail "config.stores: fence: true writes to CNI's directories, and release: off has them read-only" -}}
{{- end -}}
{{- $_ := set $store "reclaim" $mode -}}
{{- $_ := set $store "dir" ($store.dir | default "/var/lib/cni/networks") -}}
{{- end -}}
{{- $stores = append $stores $store -}}
{{- end -}}
{{- if .Values.leaseFile -}}
{{- $stores = append $stores (dict "kind" "file" "path" "/etc/ipam-agent/leases.yaml") -}}
{{- end -}}
{{- dict "stores" $stores | toYaml -}}
{{- end -}}

{{/* The agent's configuration. */}}
{{- define "ipam-agent.config" -}}
{{- $config := deepCopy .Values.config -}}
{{- if and (eq (include "ipam-agent.release" .) "off") (dig "reclaim" "clean_caches" false $config) -}}
{{- fail "config.reclaim.clean_caches writes to CNI's directories, and release: off has them read-only" -}}
{{- end -}}
{{- if kindIs "bool" (dig "holders" "cri" "" $config) -}}
{{- $_ := set $config.holders "cri" "off" -}}
{{- end -}}
{{- $_ := set $config "stores" (include "ipam-agent.stores" . | fromYaml).stores -}}
{{- $_ := set $config "state_dir" .Values.stateDir -}}
{{- toYaml $config -}}
{{- end -}}
