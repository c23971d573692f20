import numpy as np, torch
from scipy import ndimage
from gigaseg.segmenters.base import TileInstances
def components(mask, *, min_area=0.0):
    l,n=ndimage.label(mask,np.ones((3,3))); a=np.bincount(l.ravel(),minlength=n+1); keep=a>=min_area; keep[0]=False
    num=np.zeros(n+1,np.int32); num[keep]=np.arange(1,keep.sum()+1); return num[l]
def split_touching(mask, diameter, *, min_area=0.0):
    from skimage.feature import peak_local_max
    from skimage.segmentation import watershed
    l=components(mask,min_area=min_area); mask=l>0
    if not mask.any(): return l
    d=ndimage.gaussian_filter(ndimage.distance_transform_edt(np.pad(mask,1,mode='edge'))[1:-1,1:-1],0.06*diameter)
    pk=peak_local_max(d,min_distance=max(1,round(0.35*diameter)),exclude_border=False,labels=mask.astype(int))
    m=np.zeros_like(l); m[tuple(pk.T)]=np.arange(1,len(pk)+1)
    seen=np.unique(l[tuple(pk.T)]); miss=np.setdiff1d(np.arange(1,l.max()+1),seen)
    for k,c in enumerate(miss):
        y,x=np.argwhere(l==c)[0]; m[y,x]=len(pk)+1+k
    return watershed(-d,m,mask=mask).astype(np.int32)
def to_instances(labels, probability, classes=1, index=0):
    sl=ndimage.find_objects(labels); b=[];m=[];s=[]
    for i,o in enumerate(sl):
        if o is None: continue
        k=labels[o]==i+1; b.append([o[1].start,o[0].start,o[1].stop,o[0].stop]); m.append(torch.from_numpy(k)); s.append(float(probability[o][k].mean()))
    p=torch.zeros(len(b),classes); p[:,index]=1
    return TileInstances(torch.tensor(b,dtype=torch.int32).view(-1,4),m,torch.tensor(s,dtype=torch.float32),p)
