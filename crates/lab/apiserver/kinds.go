package main

import (
	"fmt"
	"reflect"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/conversion"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/apiserver/pkg/endpoints/openapi"
	"k8s.io/apiserver/pkg/server"
	"k8s.io/kube-openapi/pkg/common"
	"k8s.io/kube-openapi/pkg/util"
	"k8s.io/kube-openapi/pkg/validation/spec"
)

// kind is one kind of object that is served.
type kind struct {
	version            schema.GroupVersion
	resource, singular string
	namespaced         bool
	object, list       runtime.Object
}

var kinds = []kind{
	{corev1.SchemeGroupVersion, "nodes", "node", false, &corev1.Node{}, &corev1.NodeList{}},
	{corev1.SchemeGroupVersion, "pods", "pod", true, &corev1.Pod{}, &corev1.PodList{}},
	{corev1.SchemeGroupVersion, "namespaces", "namespace", false, &corev1.Namespace{}, &corev1.NamespaceList{}},
	{eventsv1.SchemeGroupVersion, "events", "event", true, &eventsv1.Event{}, &eventsv1.EventList{}},
	{admissionv1.SchemeGroupVersion, "validatingadmissionpolicies", "validatingadmissionpolicy", false,
		&admissionv1.ValidatingAdmissionPolicy{}, &admissionv1.ValidatingAdmissionPolicyList{}},
	{admissionv1.SchemeGroupVersion, "validatingadmissionpolicybindings", "validatingadmissionpolicybinding", false,
		&admissionv1.ValidatingAdmissionPolicyBinding{}, &admissionv1.ValidatingAdmissionPolicyBindingList{}},
}

var versions = []schema.GroupVersion{
	corev1.SchemeGroupVersion, eventsv1.SchemeGroupVersion, admissionv1.SchemeGroupVersion,
}

var (
	scheme         = newScheme()
	codecs         = serializer.NewCodecFactory(scheme)
	parameterCodec = runtime.NewParameterCodec(scheme)
)

// newScheme is that of the API's types. The internal version that a server works with, for which Kubernetes has types of
// its own, is here the external one.
func newScheme() *runtime.Scheme {
	scheme := runtime.NewScheme()
	utilruntime.Must(corev1.AddToScheme(scheme))
	utilruntime.Must(eventsv1.AddToScheme(scheme))
	utilruntime.Must(admissionv1.AddToScheme(scheme))
	metav1.AddToGroupVersion(scheme, corev1.SchemeGroupVersion)
	for _, kind := range kinds {
		internal := schema.GroupVersion{Group: kind.version.Group, Version: runtime.APIVersionInternal}
		scheme.AddKnownTypes(internal, kind.object, kind.list)
		utilruntime.Must(scheme.AddConversionFunc(kind.object, kind.object, copyObject))
	}
	for _, version := range versions {
		utilruntime.Must(scheme.SetVersionPriority(version))
	}
	pod := corev1.SchemeGroupVersion.WithKind("Pod")
	utilruntime.Must(scheme.AddFieldLabelConversionFunc(pod, func(label, value string) (string, string, error) {
		switch label {
		case "metadata.name", "metadata.namespace", "spec.nodeName":
			return label, value, nil
		}
		return "", "", fmt.Errorf("no field selector %q for Pods here", label)
	}))
	scheme.AddTypeDefaultingFunc(&admissionv1.ValidatingAdmissionPolicy{}, func(object any) {
		setDefaults(object.(*admissionv1.ValidatingAdmissionPolicy))
	})
	return scheme
}

// copyObject is the conversion between versions of the same type.
func copyObject(from, to any, _ conversion.Scope) error {
	copied := from.(runtime.Object).DeepCopyObject()
	reflect.ValueOf(to).Elem().Set(reflect.ValueOf(copied).Elem())
	return nil
}

// setDefaults does what pkg/apis/admissionregistration/v1/defaults.go of Kubernetes does to a policy. Selectors that are
// left out select everything, where none at all would select nothing.
func setDefaults(policy *admissionv1.ValidatingAdmissionPolicy) {
	if policy.Spec.FailurePolicy == nil {
		policy.Spec.FailurePolicy = new(admissionv1.Fail)
	}
	match := policy.Spec.MatchConstraints
	if match == nil {
		return
	}
	if match.MatchPolicy == nil {
		match.MatchPolicy = new(admissionv1.Equivalent)
	}
	if match.NamespaceSelector == nil {
		match.NamespaceSelector = &metav1.LabelSelector{}
	}
	if match.ObjectSelector == nil {
		match.ObjectSelector = &metav1.LabelSelector{}
	}
	for _, rules := range [][]admissionv1.NamedRuleWithOperations{match.ResourceRules, match.ExcludeResourceRules} {
		for i := range rules {
			if rules[i].Scope == nil {
				rules[i].Scope = new(admissionv1.AllScopes)
			}
		}
	}
}

func storageCodec() runtime.Codec {
	return codecs.LegacyCodec(versions...)
}

// schemas says of each kind that it may hold anything: applying needs to find one. What is left out with it is that lists
// are merged by keys.
func schemas() *common.OpenAPIV3Config {
	definitions := func(common.ReferenceCallback) map[string]common.OpenAPIDefinition {
		found := map[string]common.OpenAPIDefinition{}
		for _, kind := range kinds {
			anything := spec.Schema{SchemaProps: spec.SchemaProps{Type: []string{"object"}}}
			anything.AddExtension("x-kubernetes-preserve-unknown-fields", true)
			found[util.GetCanonicalTypeName(kind.object)] = common.OpenAPIDefinition{Schema: anything}
		}
		return found
	}
	return server.DefaultOpenAPIV3Config(definitions, openapi.NewDefinitionNamer(scheme))
}
