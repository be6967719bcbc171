package main

import (
	"context"
	"reflect"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/registry/generic"
	"k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/names"
)

// install makes a server serve all kinds.
func install(generic *server.GenericAPIServer, getter generic.RESTOptionsGetter) error {
	for _, version := range versions {
		group := server.NewDefaultAPIGroupInfo(version.Group, scheme, parameterCodec, codecs)
		stores := map[string]rest.Storage{}
		for _, kind := range kinds {
			if kind.version != version {
				continue
			}
			if err := addStores(stores, kind, getter); err != nil {
				return err
			}
		}
		group.VersionedResourcesStorageMap[version.Version] = stores
		var err error
		if version.Group == "" {
			err = generic.InstallLegacyAPIGroup(server.DefaultLegacyAPIPrefix, &group)
		} else {
			err = generic.InstallAPIGroup(&group)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// addStores adds the store of a kind, and its subresource status where objects have one.
func addStores(stores map[string]rest.Storage, kind kind, getter generic.RESTOptionsGetter) error {
	resource := schema.GroupResource{Group: kind.version.Group, Resource: kind.resource}
	fresh := func(object runtime.Object) func() runtime.Object {
		return func() runtime.Object { return reflect.New(reflect.TypeOf(object).Elem()).Interface().(runtime.Object) }
	}
	strategy := strategy{ObjectTyper: scheme, NameGenerator: names.SimpleNameGenerator, namespaced: kind.namespaced, kept: "Status"}
	store := &registry.Store{
		NewFunc:                   fresh(kind.object),
		NewListFunc:               fresh(kind.list),
		DefaultQualifiedResource:  resource,
		SingularQualifiedResource: schema.GroupResource{Group: kind.version.Group, Resource: kind.singular},
		CreateStrategy:            strategy,
		UpdateStrategy:            strategy,
		DeleteStrategy:            strategy,
		PredicateFunc:             predicate,
		TableConvertor:            rest.NewDefaultTableConvertor(resource),
	}
	if err := store.CompleteWithOptions(&generic.StoreOptions{RESTOptions: getter, AttrFunc: attributes}); err != nil {
		return err
	}
	stores[kind.resource] = store
	if reflect.ValueOf(kind.object).Elem().FieldByName("Status").IsValid() {
		status := *store
		strategy.kept = "Spec"
		status.UpdateStrategy = strategy
		stores[kind.resource+"/status"] = &statusStore{&status}
	}
	return nil
}

// strategy of all kinds: what is asked for is stored, but for the part that is kept as it was: the status, and in writes
// of the status the specification. Of metadata all is taken, as the real Node's strategy takes it.
type strategy struct {
	runtime.ObjectTyper
	names.NameGenerator
	namespaced bool
	kept       string
}

func (s strategy) NamespaceScoped() bool          { return s.namespaced }
func (s strategy) AllowCreateOnUpdate() bool      { return false }
func (s strategy) AllowUnconditionalUpdate() bool { return true }
func (s strategy) Canonicalize(runtime.Object)    {}

func (s strategy) PrepareForCreate(context.Context, runtime.Object) {}

func (s strategy) PrepareForUpdate(_ context.Context, object, old runtime.Object) {
	if kept := reflect.ValueOf(object).Elem().FieldByName(s.kept); kept.IsValid() {
		kept.Set(reflect.ValueOf(old.DeepCopyObject()).Elem().FieldByName(s.kept))
	}
}

func (s strategy) Validate(context.Context, runtime.Object) field.ErrorList { return nil }

func (s strategy) ValidateUpdate(context.Context, runtime.Object, runtime.Object) field.ErrorList {
	return nil
}

func (s strategy) WarningsOnCreate(context.Context, runtime.Object) []string { return nil }

func (s strategy) WarningsOnUpdate(context.Context, runtime.Object, runtime.Object) []string {
	return nil
}

// attributes are what selectors can ask for.
func attributes(object runtime.Object) (labels.Set, fields.Set, error) {
	accessor, err := meta.Accessor(object)
	if err != nil {
		return nil, nil, err
	}
	found := fields.Set{"metadata.name": accessor.GetName(), "metadata.namespace": accessor.GetNamespace()}
	if pod, ok := object.(*corev1.Pod); ok {
		found["spec.nodeName"] = pod.Spec.NodeName
	}
	return accessor.GetLabels(), found, nil
}

func predicate(label labels.Selector, field fields.Selector) storage.SelectionPredicate {
	return storage.SelectionPredicate{Label: label, Field: field, GetAttrs: attributes}
}

// statusStore serves the subresource status: to be read and to be changed.
type statusStore struct{ store *registry.Store }

func (s *statusStore) New() runtime.Object { return s.store.New() }
func (s *statusStore) Destroy()            {}

func (s *statusStore) Get(ctx context.Context, name string, options *metav1.GetOptions) (runtime.Object, error) {
	return s.store.Get(ctx, name, options)
}

func (s *statusStore) Update(ctx context.Context, name string, object rest.UpdatedObjectInfo,
	create rest.ValidateObjectFunc, update rest.ValidateObjectUpdateFunc, _ bool, options *metav1.UpdateOptions,
) (runtime.Object, bool, error) {
	return s.store.Update(ctx, name, object, create, update, false, options)
}
