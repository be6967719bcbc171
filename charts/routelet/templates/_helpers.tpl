{{- define "routelet.labels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- /* Of the agent's pods and no others: a DaemonSet takes over whatever has the labels that it selects. */ -}}
{{- define "routelet.selector" -}}
app.kubernetes.io/component: agent
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "routelet.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- /* Cluster-wide objects and devices on the nodes: one release for a cluster, so all are named after it. */ -}}
{{- define "routelet.name" -}}
{{ .Release.Name | trunc 52 | trimSuffix "-" }}
{{- end }}

{{- define "routelet.adminAddress" -}}
{{- $own := ternary "$(HOST_IP)" "127.0.0.1" .Values.podMonitor.enabled -}}
{{- .Values.admin.address | default $own }}:{{ .Values.admin.port }}
{{- end }}

{{- /* The host that the kubelet probes; without one it is the pod's address, which is the node's. */ -}}
{{- define "routelet.probe" -}}
path: {{ .path }}
port: {{ .root.Values.admin.port }}
{{- if not (or .root.Values.admin.address .root.Values.podMonitor.enabled) }}
host: 127.0.0.1
{{- else if hasPrefix "127." .root.Values.admin.address }}
host: {{ .root.Values.admin.address }}
{{- end }}
{{- end }}

{{- define "routelet.securityContext" -}}
privileged: false
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsUser: 0
capabilities:
  drop: [ALL]
  add:
    {{- toYaml .Values.capabilities | nindent 4 }}
{{- end }}

{{- define "routelet.volumeMounts" -}}
# Container runtimes make /proc/sys read-only, and mount nothing below /proc.
- name: sysctl
  mountPath: /host/proc/sys/net
- name: run
  mountPath: /run/routelet
{{- if .Values.cni.install }}
- name: cni-bin
  mountPath: {{ .Values.cni.binDir }}
- name: cni-conf
  mountPath: {{ .Values.cni.confDir }}
{{- end }}
{{- end }}

{{- define "routelet.volumes" -}}
- name: sysctl
  hostPath:
    path: /proc/sys/net
    type: Directory
- name: run
  hostPath:
    path: /run/routelet
    type: DirectoryOrCreate
{{- if .Values.cni.install }}
- name: cni-bin
  hostPath:
    path: {{ .Values.cni.binDir }}
    type: DirectoryOrCreate
- name: cni-conf
  hostPath:
    path: {{ .Values.cni.confDir }}
    type: DirectoryOrCreate
{{- end }}
{{- end }}

{{- /* Whether the API server has ValidatingAdmissionPolicies; empty where it has none. */ -}}
{{- define "routelet.hasPolicies" -}}
{{- if .Capabilities.APIVersions.Has "admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy" }}true{{ end }}
{{- end }}
